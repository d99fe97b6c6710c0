"""The export stage of fastembed-rt: checkpoint -> graphs -> quantized -> verified -> model directory.

Needs the extra `export`; torch only to verify. The runtime never imports this package, the command line does lazily.
"""
