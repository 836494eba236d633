"""stable-diffusion-webui-forge-neo: Forge with ComfyUI's patchers and number formats."""
