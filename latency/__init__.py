"""Times ONNX graphs on a device and keeps the results in lookup tables. Knows no search and no task."""
