"""A torch module becomes ONNX, and proof that it still is the same network. Knows no search and no task."""
