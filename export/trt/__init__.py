"""TensorRT: parse ONNX files, build engines, run them, check the types of their layers. TensorRT is imported on use."""
