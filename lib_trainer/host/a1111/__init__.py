"""AUTOMATIC1111's stable-diffusion-webui."""
