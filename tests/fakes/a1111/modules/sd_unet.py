current_unet = None
"""There is no extension with a UNet of its own."""
