"""What a device computes in, and which optimizers run on it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from importlib.util import find_spec

import torch
from torch import Tensor, nn

from lib_trainer.errors import UserError
from lib_trainer.models.optimizers import canonical_name

DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
"""The recipes' names of number formats. Weights in these can be converted to another and restored."""

# Weights that are stored in float32 are converted at every use, so bfloat16 has to be clearly faster.
_LEAST_GAIN = 0.8


# 8-bit optimizer -> what computes the same in more memory.
SAME_IN_32_BIT = {"AdamW8bit": "AdamW", "PagedAdamW8bit": "AdamW", "Lion8bit": "Lion"}


def compute_dtype(mixed_precision: str, device: torch.device) -> torch.dtype:
    """What the UNet computes in: the recipe's choice where the device supports it.

    A CPU has no float16 products of its own, and bfloat16 ones only since some years: it computes in bfloat16 where
    that is asked for and faster, in float32 otherwise.
    """
    if mixed_precision == "fp32":
        return torch.float32
    if device.type == "cpu":
        return torch.bfloat16 if mixed_precision == "bf16" and cpu_is_faster_in_bf16() else torch.float32
    has_bf16 = device.type != "cuda" or torch.cuda.is_bf16_supported()
    return torch.bfloat16 if mixed_precision == "bf16" and has_bf16 else torch.float16


def pinned(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the CPU in memory that the device reads by itself, where it can."""
    return tensor.pin_memory() if _reads_pinned_memory(device) else tensor


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A tensor of the CPU on the device, without waiting for what that is doing."""
    return pinned(tensor, device).to(device, non_blocking=True)


def _reads_pinned_memory(device: torch.device) -> bool:
    return device.type == "cuda"


@lru_cache
def cpu_is_faster_in_bf16() -> bool:
    """Measured once a process, on the product of one layer: a CPU without such products takes 100 times as long.

    What a build of torch has for this CPU is written nowhere that all its releases share.
    """
    return _seconds_of_a_product(torch.bfloat16) < _LEAST_GAIN * _seconds_of_a_product(torch.float32)


def _seconds_of_a_product(dtype: torch.dtype) -> float:
    """The least time of a linear layer with 320 channels, on 256 tokens, on one thread.

    On a busy machine several threads wait for each other, many times as long as they compute.
    """
    seconds = []
    with _one_thread(), torch.inference_mode():
        tokens, weight = torch.ones(256, 320, dtype=dtype), torch.ones(320, 320, dtype=dtype)
        # The first product prepares the kernel.
        for _ in range(4):
            start = time.perf_counter()
            nn.functional.linear(tokens, weight)
            seconds.append(time.perf_counter() - start)
    return min(seconds)


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def total_ram() -> int | None:
    """Bytes of RAM of this machine; None where nothing can tell. Every WebUI brings psutil."""
    if not find_spec("psutil"):
        return None
    import psutil

    return psutil.virtual_memory().total


def available_optimizer(name: str, device: torch.device) -> tuple[str, str]:
    """The optimizer to use for `name` on this device, and why it is another one ("" if it is not).

    Raises:
        UserError: it does not run on this device, and nothing computes the same.
    """
    name = canonical_name(name)
    reason = _no_8bit(device) if name.endswith("8bit") else ""
    if not reason:
        return name, ""
    other = SAME_IN_32_BIT.get(name)
    if other is None:
        raise UserError(f"{name} {reason}.", "Choose another optimizer.")
    return other, f"{name} {reason}; {other} is used instead."


def _no_8bit(device: torch.device) -> str:
    """Why an 8-bit optimizer is not available on this device; "" if it is."""
    # find_spec, because importing bitsandbytes takes seconds and prints.
    if not find_spec("bitsandbytes"):
        return "needs the package bitsandbytes, which is not installed"
    if device.type == "cuda" and not torch.cuda.is_available():
        # The plan for another machine.
        return ""
    return _failure_of_a_step(device.type)


@lru_cache
def _failure_of_a_step(device_type: str) -> str:
    """What becomes of one step of 8-bit AdamW: releases differ in the devices that they have kernels for."""
    try:
        from bitsandbytes.optim import AdamW8bit

        with torch.inference_mode(False), torch.enable_grad():
            # Smaller parameters are kept in 32 bits.
            parameter = nn.Parameter(torch.zeros(4096, device=device_type))
            parameter.grad = torch.ones_like(parameter)
            AdamW8bit([parameter]).step()
    except Exception as error:  # noqa: BLE001 - whatever a build without kernels raises
        where = "a CPU" if device_type == "cpu" else "this GPU"
        return f"does not run on {where} with the installed bitsandbytes ({type(error).__name__})"
    return ""
