import contextlib

import torch

device = cpu = torch.device("cpu")
dtype = dtype_vae = dtype_unet = torch.float32
fp8 = unet_needs_upcast = False


def torch_gc():
    """There is no GPU whose memory could be freed."""


def autocast(disable=False):
    # Weights of eight bits can only be computed with by casting them in every layer.
    return torch.autocast("cpu", dtype=torch.bfloat16) if fp8 and not disable else contextlib.nullcontext()
