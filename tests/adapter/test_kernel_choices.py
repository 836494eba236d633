"""Which strategy computes a layer: measured once by the clock of its device, kept, pinned, or taken by count."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lib_trainer.adapter.kernels import choices, measure
from lib_trainer.adapter.kernels.autograd import LayerOp
from lib_trainer.adapter.kernels.candidates import LayerCase, candidates
from lib_trainer.adapter.kernels.choices import FILE, KernelChoices
from lib_trainer.adapter.kernels.lokr import KroneckerDense
from lib_trainer.adapter.kernels.strategies import DenseForward, LowRank
from lib_trainer.adapter.modules import AdapterModule
from tests.adapter.layers import OPERATIONS, a_weight, an_input, lively_factors

LINEAR = OPERATIONS["linear"]
MADE = {"dense": KroneckerDense, "dense_forward": DenseForward, "low_rank": LowRank}


class Clock:
    """A device on which strategies take the seconds given, dense first as they are counted; notes what was timed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *seconds: float) -> None:
        self.seconds, self.asked = seconds, 0
        monkeypatch.setattr(measure, "_RUNS", 1)
        monkeypatch.setattr(measure, "seconds_of", self)

    def __call__(self, run: object, device: torch.device) -> float:
        self.asked += 1
        return self.seconds[(self.asked - 1) % len(self.seconds)]


def layer(kept: KernelChoices, recipe: str = "lokr", operation: LayerOp = LINEAR) -> AdapterModule:
    factors = lively_factors(recipe, operation, dtype=torch.float32)
    factors.compute_by(kept)
    return factors


def chosen(kept: KernelChoices, x: Tensor | None = None, recipe: str = "lokr", operation: LayerOp = LINEAR) -> type:
    x = an_input(operation, dtype=torch.float32) if x is None else x
    return type(layer(kept, recipe, operation).strategy(operation, x))


@pytest.mark.parametrize(
    ("seconds", "fastest"),
    [((3, 2, 1), LowRank), ((3, 1, 2), DenseForward), ((1, 2, 3), KroneckerDense), ((1, 0.95, 1), KroneckerDense)],
    ids=["low_rank", "dense_forward", "dense", "near tie"],
)
def test_the_fastest_on_the_device_is_chosen(monkeypatch, seconds: tuple[float, ...], fastest: type) -> None:
    clock = Clock(monkeypatch, *seconds)
    assert chosen(KernelChoices()) is fastest
    assert clock.asked == 3


def test_a_kind_of_layer_is_measured_once_and_the_next_run_measures_nothing(monkeypatch, tmp_path: Path) -> None:
    clock = Clock(monkeypatch, 3, 2, 1)
    first = KernelChoices(folder=tmp_path)
    assert [chosen(first) for _ in range(3)] == [LowRank] * 3
    assert clock.asked == 3
    clock.seconds = (1, 2, 3)
    assert chosen(KernelChoices(folder=tmp_path)) is LowRank
    assert clock.asked == 3
    assert len(first.made) == 1 and not list(tmp_path.glob("*.part"))


def test_another_device_library_shape_or_dtype_is_measured_anew(monkeypatch, tmp_path: Path) -> None:
    clock = Clock(monkeypatch, 3, 2, 1)
    chosen(KernelChoices(folder=tmp_path))
    x = an_input(LINEAR, dtype=torch.float32)
    others = [
        lambda: chosen(KernelChoices(folder=tmp_path), x.repeat(1, 4, 1)),
        lambda: chosen(KernelChoices(folder=tmp_path), x.bfloat16()),
        lambda: chosen(KernelChoices(folder=tmp_path), recipe="locon"),
        lambda: chosen(KernelChoices(folder=tmp_path), operation=OPERATIONS["wide linear"]),
    ]
    for number, other in enumerate(others, start=2):
        other()
        assert clock.asked == 3 * number
    # Buckets of about one area are one kind.
    chosen(KernelChoices(folder=tmp_path), x[:, :4])
    assert clock.asked == 15
    for name, value in (("platform.processor", "another"), ("torch.__version__", "9.9")):
        with monkeypatch.context() as changed:
            changed.setattr(f"{choices.__name__}.{name}", (lambda: "x") if "processor" in name else value)
            chosen(KernelChoices(folder=tmp_path))
    assert clock.asked == 21
    # None of them made the others forget.
    chosen(KernelChoices(folder=tmp_path))
    assert clock.asked == 21


@pytest.mark.parametrize("content", ["", "[]", "{", '{"x": 3}', "null"])
def test_a_broken_cache_is_measured_again(monkeypatch, tmp_path: Path, content: str) -> None:
    clock = Clock(monkeypatch, 3, 2, 1)
    (tmp_path / FILE).write_text(content)
    assert chosen(KernelChoices(folder=tmp_path)) is LowRank
    found = json.loads((tmp_path / FILE).read_text())
    where = list(found)[-1]
    for spoilt in ("rm -rf", 3, None, ["dense"]):
        key = next(iter(found[where]))
        (tmp_path / FILE).write_text(json.dumps({where: {key: spoilt}}))
        assert chosen(KernelChoices(folder=tmp_path)) is LowRank
    assert clock.asked == 15


def test_a_cache_that_cannot_be_written_stops_nothing(monkeypatch, tmp_path: Path) -> None:
    Clock(monkeypatch, 3, 2, 1)
    (tmp_path / "file").write_text("")
    assert chosen(KernelChoices(folder=tmp_path / "file")) is LowRank


def test_what_another_process_has_chosen_meanwhile_is_taken(monkeypatch, tmp_path: Path) -> None:
    """Two processes of a run compute a layer alike."""
    one, other = KernelChoices(folder=tmp_path), KernelChoices(folder=tmp_path)
    Clock(monkeypatch, 3, 2, 1)
    chosen(one)
    # As if it had looked into the file before the first wrote it.
    monkeypatch.setattr(other, "_kept", lambda device: {})
    Clock(monkeypatch, 1, 2, 3)
    assert chosen(other) is LowRank


def test_a_resumed_run_computes_as_it_began_whatever_the_cache_says(monkeypatch, tmp_path: Path) -> None:
    clock = Clock(monkeypatch, 3, 2, 1)
    began = KernelChoices(folder=tmp_path / "one")
    chosen(began)
    clock.seconds = (1, 2, 3)
    chosen(KernelChoices(folder=tmp_path / "two"))
    resumed = KernelChoices(folder=tmp_path / "two", recorded=began.made)
    assert chosen(resumed) is LowRank
    assert clock.asked == 6 and resumed.made == began.made


@pytest.mark.parametrize("name", list(MADE))
def test_a_pinned_strategy_is_taken_unmeasured_where_the_layer_has_it(monkeypatch, name: str) -> None:
    clock = Clock(monkeypatch, 3, 2, 1)
    assert chosen(KernelChoices(name)) is MADE[name]
    grouped = chosen(KernelChoices(name), operation=OPERATIONS["3x3 grouped"])
    assert grouped is KroneckerDense
    assert chosen(KernelChoices("counted")) is KroneckerDense
    assert clock.asked == 0


def test_when_the_time_is_used_up_the_rest_is_counted_and_kept(monkeypatch, tmp_path: Path) -> None:
    clock = Clock(monkeypatch, 3, 2, 1)
    passed = iter(range(100))
    monkeypatch.setattr(choices.time, "perf_counter", lambda: float(next(passed)))
    kept = KernelChoices(folder=tmp_path, most_seconds=1.5)
    found = [chosen(kept, operation=LayerOp((8 * n, 16))) for n in (1, 2, 3, 4)]
    assert found == [LowRank, LowRank, KroneckerDense, KroneckerDense]
    assert clock.asked == 6
    again = KernelChoices(folder=tmp_path)
    assert [chosen(again, operation=LayerOp((8 * n, 16))) for n in (1, 2, 3, 4)] == found
    assert clock.asked == 6


def test_a_strategy_without_room_on_the_device_is_left_out(monkeypatch) -> None:
    def full(run: object, device: torch.device) -> float:
        left.append(run)
        if len(left) > 1:
            raise torch.cuda.OutOfMemoryError
        return 1.0

    left: list[object] = []
    monkeypatch.setattr(measure, "_RUNS", 1)
    monkeypatch.setattr(measure, "seconds_of", full)
    assert chosen(KernelChoices()) is KroneckerDense and len(left) == 3
    left.append(full)
    assert chosen(KernelChoices()) is KroneckerDense


def test_measuring_leaves_no_trace(monkeypatch) -> None:
    """Neither in what gradient checkpointing counts, nor in the random state, nor in the factors."""
    monkeypatch.setattr(measure, "seconds_of", lambda run, device: run() or 1.0)
    weight, bias = a_weight(LINEAR, dtype=torch.float32)
    x = an_input(LINEAR, dtype=torch.float32).requires_grad_()
    found = []
    for kept in (KernelChoices("dense"), KernelChoices()):
        factors, state = layer(kept), torch.get_rng_state()
        call = nn.Module()
        call.forward = lambda x, factors=factors: factors.apply_to(LINEAR, lambda like: (weight, bias), x) * 2
        y = checkpoint(call, x, use_reentrant=False)
        found.append([y.detach(), *torch.autograd.grad(y.sum(), [x, *factors.parameters()])])
        assert torch.equal(state, torch.get_rng_state())
        with torch.inference_mode():
            factors.apply_to(LINEAR, lambda like: (weight, bias), x.repeat(1, 9, 1))
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def loha(rank: int, out: int, inner: int) -> dict[str, Tensor]:
    shapes = {"w1_a": (out, rank), "w1_b": (rank, inner), "w2_a": (out, rank), "w2_b": (rank, inner)}
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


@pytest.mark.parametrize(
    ("factors", "shape", "positions", "tried"),
    [
        # r² products are as large as W: nothing but the whole of it, or a few positions.
        (loha(32, 1280, 1280), (1280, 1280), 1024, {"dense"}),
        (loha(32, 1280, 1280), (1280, 1280), 16, {"small_batch", "dense"}),
        # Seven tensors of this size would decide what a step takes.
        (loha(8, 1280, 11520), (1280, 1280, 3, 3), 256, {"low_rank", "dense_forward"}),
        (loha(8, 320, 2880), (320, 320, 3, 3), 4096, {"low_rank", "dense_forward", "dense"}),
        # At each position r² = 256 products take more than half as much again as all that dense does.
        (loha(16, 640, 640), (640, 640), 65536, {"dense", "dense_forward"}),
    ],
)
def test_what_cannot_win_or_takes_too_much_memory_is_not_tried(factors, shape, positions: int, tried: set) -> None:
    shapes = tuple((name, tuple(factor.shape)) for name, factor in factors.items())
    case = LayerCase("loha", shapes, LayerOp(shape), positions, torch.float16)
    assert set(candidates(case)) == tried
