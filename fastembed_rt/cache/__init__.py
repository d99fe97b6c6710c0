"""Checkpoints exported once: found again by what is in them, made by one process while others wait, listed, cleared."""
