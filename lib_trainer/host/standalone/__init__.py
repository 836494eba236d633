"""A host of our own for machines without a WebUI, built on diffusers and transformers."""
