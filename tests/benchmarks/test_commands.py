"""Whole commands on the least they can run on."""

from __future__ import annotations

from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from PIL import Image

pytest.importorskip("diffusers")
pytest.importorskip("lycoris")
from benchmarks import growth
from benchmarks.cases import ADAPTERS, OURS, Compute, Implementation
from benchmarks.growth import Growth, plot_growth
from benchmarks.loads import LayerLoad
from benchmarks.processes import WorkerDied, workers
from benchmarks.scan import time_scan
from benchmarks.trainers import Task, arguments
from lib_trainer.adapter.kernels.autograd import LayerOp

INSTALLED = Implementation("lycoris-4.1.3", "lycoris")
TASK = {
    "operation": asdict(LayerOp((32, 48))),
    "adapter": asdict(ADAPTERS["loha"]),
    "x_shape": [1, 6, 48],
    "compute": asdict(Compute()),
}


def test_a_process_answers_until_it_fails(tmp_path: Path) -> None:
    with workers([OURS], tmp_path, 1) as (ours,):
        with ours.loaded(load="layer", **TASK):
            assert ours.ask(time=2) > 0 and ours.ask(time=2) > 0
            assert ours.ask(memory=True)["peak_bytes"] > 0
        with pytest.raises(WorkerDied), ours.loaded(load="nothing of that name"):
            pass


def test_what_is_kept_for_backward() -> None:
    kept, kept_by_theirs = (LayerLoad(who, TASK).memory()["kept_bytes"] for who in (OURS, INSTALLED))
    # The input is known beforehand and the factors are not of the step: nothing waits for backward.
    assert kept == 0 < kept_by_theirs


@pytest.mark.skipif(version("lycoris-lora") < "4", reason="LyCORIS before 4 computes W + ΔW − W")
@pytest.mark.parametrize("adapter", list(ADAPTERS))
def test_both_sides_compute_the_same(adapter: str) -> None:
    task = {**TASK, "adapter": asdict(ADAPTERS[adapter])}
    found = []
    for implementation in (OURS, Implementation("lycoris", "lycoris")):
        load = LayerLoad(implementation, task)
        load.run()
        found.append(load._x.grad)
    torch.testing.assert_close(*found, rtol=1e-4, atol=1e-5)


def test_a_scan_is_timed_and_its_memory_grows_with_names_alone(tmp_path: Path) -> None:
    found = time_scan(tmp_path, 50)
    assert found.pictures == 50 and found.seconds > 0
    assert found.peak_bytes / found.pictures < 10_000


def test_growth_is_measured_of_both_adapters_and_the_frozen_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(growth, "_VALUES", {"batch": (1, 2)})
    monkeypatch.setattr(growth, "_DEFAULTS", {"batch": 1, "tokens": 8, "rank": 4, "layers": 1})
    found = growth.measure_growth(threads=1)
    assert {curve.who for curve in found} == {"loha", "lokr", "frozen"}
    assert all(len(curve.seconds) == 2 and min(curve.seconds) > 0 for curve in found)


def test_the_plot_shows_every_curve(tmp_path: Path) -> None:
    curves = [Growth("batch", who, (1, 2, 4), (0.1, 0.2, 0.4 + bonus)) for who, bonus in (("loha", 0.1), ("lokr", 0.0))]
    assert curves[1].slope == pytest.approx(1.0)
    plot_growth(curves, tmp_path / "plot.png")
    colours = {colour for _, colour in Image.open(tmp_path / "plot.png").getcolors(100_000)}
    assert {(0xC0, 0x39, 0x2B), (0x24, 0x71, 0xA3)} <= colours


def test_sd_scripts_is_asked_for_the_same_adapter(tmp_path: Path) -> None:
    asked = arguments(Task("lokr", "model.safetensors"), tmp_path)
    assert {"--network_dim=64", "--learning_rate=0.0001", "algo=lokr", "factor=8", "conv_dim=64"} <= set(asked)
