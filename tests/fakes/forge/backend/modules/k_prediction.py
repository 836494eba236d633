import torch


def rescale_zero_terminal_snr_sigmas(sigmas):
    root = (1 / (sigmas**2 + 1)).sqrt()
    root = (root - root[-1]) * root[0] / (root[0] - root[-1])
    alphas = root**2
    alphas[-1] = 4.8973451890853435e-08
    return ((1 - alphas) / alphas) ** 0.5


class PredictionFlow(torch.nn.Module):
    """Of transformers: σ from 0 to 1, shifted as a person likes it."""

    prediction_type, shift = "const", 3.0

    def __init__(self, multiplier=1.0):
        super().__init__()
        self.multiplier = multiplier
        ramp = torch.arange(1, 1001) / 1000
        self.register_buffer("sigmas", self.shift * ramp / (1 + (self.shift - 1) * ramp))

    def timestep(self, sigma):
        return sigma * self.multiplier

    def calculate_input(self, sigma, noise):
        return noise

    def calculate_denoised(self, sigma, model_output, model_input):
        return model_input - model_output * sigma.view(-1, *[1] * (model_output.ndim - 1))


class Prediction(torch.nn.Module):
    def __init__(self, prediction_type="epsilon", timesteps=1000):
        super().__init__()
        self.sigma_data, self.prediction_type = 1.0, prediction_type
        betas = torch.linspace(0.00085**0.5, 0.012**0.5, timesteps, dtype=torch.float64) ** 2
        alphas = torch.cumprod(1 - betas, 0)
        self.set_sigmas(((1 - alphas) / alphas) ** 0.5)

    def set_sigmas(self, sigmas):
        self.register_buffer("sigmas", sigmas.float())
        self.register_buffer("log_sigmas", sigmas.log().float())

    def timestep(self, sigma):
        return (sigma.log() - self.log_sigmas[:, None]).abs().argmin(0).view(sigma.shape)

    def calculate_input(self, sigma, noise):
        return noise / (sigma.view(-1, 1, 1, 1) ** 2 + 1) ** 0.5

    def calculate_denoised(self, sigma, model_output, model_input):
        sigma = sigma.view(-1, 1, 1, 1)
        if self.prediction_type == "v_prediction":
            return model_input / (sigma**2 + 1) - model_output * sigma / (sigma**2 + 1) ** 0.5
        return model_input - model_output * sigma
