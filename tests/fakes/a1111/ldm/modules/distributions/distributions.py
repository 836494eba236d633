import torch


class DiagonalGaussianDistribution:
    def __init__(self, moments):
        self._mean, log_variance = moments.tensor_split(2, dim=1)
        self._spread = (log_variance / 2).exp()

    def mode(self):
        return self._mean

    def sample(self):
        return torch.normal(self._mean, self._spread)
