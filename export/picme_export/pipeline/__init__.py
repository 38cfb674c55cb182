"""The whole way from bytes to bytes as ONNX graphs of standard operators (docs/deployment.md)."""
