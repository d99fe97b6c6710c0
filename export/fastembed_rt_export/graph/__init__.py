"""Graph building: operations on token states, and how each target turns them into ONNX nodes."""
