"""ComfyUI's UNet and VAE are LDM's: those of the fake A1111 serve, with the attention of this package."""

from pathlib import Path

__path__.append(str(Path(__file__).parents[5] / "a1111" / "ldm" / "modules" / "diffusionmodules"))
