loaded_vae_file = None
"""There is no other VAE to choose than the checkpoint's own."""
