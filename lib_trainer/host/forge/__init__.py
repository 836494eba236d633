"""stable-diffusion-webui-forge."""
