"""Models in files: the bundle, the authors' checkpoints, ONNX graphs in fp32 and int8."""
