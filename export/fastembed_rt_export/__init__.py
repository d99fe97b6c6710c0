"""The export stage of fastembed-rt: checkpoint -> graphs -> quantized -> verified -> model directory.

Needs the extra `export`; torch only to verify. The runtime imports this package when there is
something to export: its commands, and fastembed_rt/cache/exporting.py.
"""
