"""A model directory as it is written: whole or not at all, its card, the manifests of several encoders."""
