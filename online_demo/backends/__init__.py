"""What runs the network: PyTorch, ONNX Runtime (float and 8 bits), code that TVM compiled."""
