"""Weights of four bits, on a CPU: needs a bitsandbytes that has its kernels there."""

import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Params4bit


class ForgeParams4bit(Params4bit):
    pass


def functional_dequantize_4bit(weight):
    if not weight.bnb_quantized:
        return weight
    return dequantize_4bit(weight, quant_state=weight.quant_state)


def quantize_linears(model, quant_type):
    """Every linear layer's weight in four bits, as Forge's loader holds it."""
    for module in model.modules():
        weight = module._parameters.get("weight")
        if type(module).__name__ == "Linear" and weight is not None:
            packed = ForgeParams4bit(
                weight.data.half(), requires_grad=False, compress_statistics=False, blocksize=64, quant_type=quant_type
            )
            module.weight = packed._quantize(torch.device("cpu"))
