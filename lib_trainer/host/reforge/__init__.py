"""reForge and Forge Classic as one host: A1111's pages and text encoders around ComfyUI's models."""
