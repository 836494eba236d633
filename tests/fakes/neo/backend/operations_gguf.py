def dequantize_tensor(tensor):
    return tensor if tensor is None or tensor.gguf_cls is None else tensor.gguf_cls.dequantize_pytorch(tensor)
