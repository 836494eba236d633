import torch


def _wide(sigma):
    return sigma.view(-1, 1, 1, 1)


class EPS:
    def calculate_input(self, sigma, noise):
        return noise / (_wide(sigma) ** 2 + 1) ** 0.5

    def calculate_denoised(self, sigma, model_output, model_input):
        return model_input - model_output * _wide(sigma)


class V_PREDICTION(EPS):
    def calculate_denoised(self, sigma, model_output, model_input):
        level = _wide(sigma) ** 2 + 1
        return model_input / level - model_output * _wide(sigma) / level**0.5


class EDM(V_PREDICTION):
    """On a schedule without end."""


class CONST:
    """Rectified flow."""


class ModelSamplingDiscrete(torch.nn.Module):
    def __init__(self):
        super().__init__()
        betas = torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2
        alphas = torch.cumprod(1 - betas, 0)
        self.register_buffer("sigmas", (((1 - alphas) / alphas) ** 0.5).float())

    def timestep(self, sigma):
        return (sigma.log() - self.sigmas.log()[:, None]).abs().argmin(0).view(sigma.shape)
