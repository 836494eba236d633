from backend import memory_management
from backend.patcher.base import ModelPatcher


class VAE:
    """`is_wan`: of a video model, (B, C, T, H, W); what it is given as a batch are the frames of one video."""

    def __init__(self, model, device):
        self.first_stage_model, self.device, self.latent_channels = model.eval(), device, model.latent_channels
        self.vae_dtype = model.decoder[0].weight.dtype
        self.patcher, self.is_wan = ModelPatcher(model, device, device), getattr(model, "is_wan", False)

    def encode(self, pixel_samples):
        """Pixels (B, H, W, 3) in 0…1 to unscaled latents, a sample of the posterior."""
        memory_management.load_models_gpu([self.patcher])
        samples = pixel_samples.movedim(-1, 1)
        samples = samples.movedim(1, 0)[None] if self.is_wan else samples
        return self.first_stage_model.encode(2.0 * samples - 1.0).float()

    def decode(self, samples_in):
        memory_management.load_models_gpu([self.patcher])
        return ((self.first_stage_model.decode(samples_in) + 1) / 2).clamp(0, 1).movedim(1, -1)
