"""Captions made by a machine: by what the WebUI has, or by a tagger's ONNX file."""
