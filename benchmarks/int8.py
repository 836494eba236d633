"""What 8-bit products cost in accuracy: each layer's output, and whole runs of the embedded model."""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from benchmarks.report import say, table
from lib_trainer.adapter.kernels.autograd import LayerOp
from lib_trainer.adapter.kernels.int8 import fits_int8, int8_grad_input, int8_product
from lib_trainer.demo.evaluate import denoising_loss, prepare_exam
from lib_trainer.demo.recipes import DEMO_RUNS, DemoRun
from lib_trainer.events import Finished, Notice, Step
from lib_trainer.host.standalone.host import StandaloneHost
from lib_trainer.host.standalone.merge_lora import merged_loras
from lib_trainer.memory.plan import Plan
from lib_trainer.models.base import HostModel, Layer
from lib_trainer.models.offload import Int8Weight
from lib_trainer.models.placement import RESIDENT, Placement
from lib_trainer.run import run

# Sums of so many products of two such numbers are whole in float32.
_EXACT_IN_FLOAT32 = 2**24 // 127**2
_TAIL_STEPS = 50
_KINDS = ("attn1_to_", "attn2_to_", "ff_net_", "proj_", "time_emb", "time_embedding")


@dataclass(frozen=True)
class Trained:
    """One run: the loss of each step, and that of held-out pictures with its file."""

    losses: list[float]
    held_out: float

    @property
    def tail(self) -> float:
        """Mean of the last steps."""
        return statistics.fmean(self.losses[-_TAIL_STEPS:])


def layer_errors() -> dict[str, list[tuple[float, float]]]:
    """Relative errors of output and of the input's gradient, of each linear layer of the embedded model, by kind.

    Beside the same 8-bit weight in float32, on what the layer sees in denoising held-out pictures.
    """
    demo, found = DEMO_RUNS["face"], {}
    with tempfile.TemporaryDirectory() as folder, StandaloneHost(Path(folder)).open_model() as model:
        seen = _inputs(model, demo)
        for layer in model.adaptable_layers():
            x = seen.get(layer.name)
            if layer.kind != "linear" or x is None:
                continue
            held, x = Int8Weight.of(layer.module.weight.detach()), x.flatten(0, -2)
            if not fits_int8(LayerOp(layer.shape), x):
                continue
            grad = torch.randn(len(x), len(held.values), generator=torch.Generator().manual_seed(0))
            dense = held.dense(x)
            errors = _error(int8_product(x, held), x @ dense.T), _error(int8_grad_input(grad, held), grad @ dense)
            kind = next((kind for kind in _KINDS if kind in layer.name), "others")
            found.setdefault(kind.strip("_"), []).append(errors)
    return found


def train_both(kind: str, steps: int) -> dict[str, Trained]:
    """A demo run on weights held in 8 bits, with products in the compute dtype (`off`) and in 8 bits (`on`)."""
    return {setting: _train(DEMO_RUNS[kind], steps, setting) for setting in ("off", "on")}


def report_int8(kinds: list[str], steps: int) -> None:
    """Tables of layers and of runs."""
    with exact_products():
        rows = [
            [
                name,
                str(len(pairs)),
                *(f"{statistics.median(part):.4f} · {max(part):.4f}" for part in zip(*pairs, strict=True)),
            ]
            for name, pairs in sorted(layer_errors().items())
        ]
        say(table(["layers", "of them", "error of the output, median · most", "of the input's gradient"], rows))
        rows = []
        for kind in kinds:
            made = train_both(kind, steps)
            for what, value in (("last steps", lambda run: run.tail), ("held out", lambda run: run.held_out)):
                off, on = value(made["off"]), value(made["on"])
                rows.append([kind, what, f"{off:.5f}", f"{on:.5f}", f"{on / off - 1:+.2%}"])
            apart = [abs(b / a - 1) for a, b in zip(made["off"].losses, made["on"].losses, strict=True)]
            rows.append([kind, f"each of {steps} steps", "", "", f"median {statistics.median(apart):.2%}"])
        say(table(["run", "loss", "off", "on", "difference"], rows))


@contextmanager
def exact_products() -> Iterator[None]:
    """Computes integer products in floats that hold every sum exactly: CPUs without VNNI take 20 times as long."""

    def product(a: Tensor, b: Tensor) -> Tensor:
        dtype = torch.float32 if a.shape[1] <= _EXACT_IN_FLOAT32 else torch.float64
        return (a.to(dtype) @ b.to(dtype)).to(torch.int32)

    with patch.object(torch, "_int_mm", product):
        yield


def _train(demo: DemoRun, steps: int, setting: str) -> Trained:
    planned = Plan.placement.func

    def held(plan: Plan) -> Placement:
        return replace(planned(plan), int8=True)

    with tempfile.TemporaryDirectory() as folder, patch.object(Plan, "placement", property(held)):
        out = Path(folder)
        host, losses, path = StandaloneHost(out), [], None
        recipe = demo.recipe(demo.draw(out / "data")).with_values({"max_train_steps": steps, "int8_matmul": setting})
        for event in run(host, recipe):
            if isinstance(event, Step):
                losses.append(event.loss)
            elif isinstance(event, Notice):
                say(event.text, progress=True)
            elif isinstance(event, Finished):
                path = event.path
        return Trained(losses, _held_out(host, demo, path))


def _held_out(host: StandaloneHost, demo: DemoRun, path: Path) -> float:
    with host.open_model() as model, torch.no_grad():
        exam = prepare_exam(model, demo.heldout())
        model.prepare_training(RESIDENT, text_encoder=True)
        layers = [*model.adaptable_layers(), *model.text_layers()]
        with merged_loras(layers, [(path, 1.0)]):
            return denoising_loss(model, exam, 1)


def _inputs(model: HostModel, demo: DemoRun) -> dict[str, Tensor]:
    """What each layer sees first, while held-out pictures are denoised."""
    seen: dict[str, Tensor] = {}
    with torch.no_grad():
        exam = prepare_exam(model, demo.heldout())
        model.prepare_training(RESIDENT, text_encoder=True)

        def note(layer: Layer) -> RemovableHandle:
            def keep(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
                seen.setdefault(layer.name, inputs[0])

            return layer.module.register_forward_pre_hook(keep)

        hooks = [note(layer) for layer in model.adaptable_layers() if layer.kind == "linear"]
        denoising_loss(model, exam, 1)
        for hook in hooks:
            hook.remove()
    return seen


def _error(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())
