"""Whole commands on the least they can run on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

pytest.importorskip("diffusers")
pytest.importorskip("lycoris")
from benchmarks import cases, growth
from benchmarks.card import OnCard, report_on_card
from benchmarks.cases import ADAPTERS, FROZEN, OURS, SMALL, Compute, Implementation
from benchmarks.growth import Growth, plot_growth
from benchmarks.loads import LayerLoad, build_load
from benchmarks.processes import WorkerDied, workers
from benchmarks.scan import time_scan
from benchmarks.speed import BEGIN, END, write_page
from benchmarks.trainers import Task, arguments
from benchmarks.training import ENDED, Setting, compare_whole_steps, report_steps
from lib_trainer.adapter.kernels.autograd import LayerOp
from lib_trainer.models import device
from lib_trainer.models.families import UNetShape

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
        assert not ours.is_running
        with ours.loaded(load="layer", **TASK):
            assert ours.ask(time=1) > 0


class Answering:
    """A worker of made-up figures; one that is `mortal` ends when its memory is asked for."""

    def __init__(self, implementation: Implementation, *, mortal: bool = False) -> None:
        self.implementation, self._mortal, self.is_running = implementation, mortal, True

    @contextmanager
    def loaded(self, **_task: Any) -> Iterator[None]:
        yield

    def ask(self, **task: Any) -> Any:
        if self._mortal and "memory" in task:
            self.is_running = False
            raise WorkerDied(self.implementation.name)
        return {"losses": [0.5], "memory": {"peak_bytes": 2**20, "kept_bytes": 0}, "time": 2.0}[next(iter(task))]


def test_whoever_runs_out_of_memory_is_a_line_and_the_others_are_measured(capsys: pytest.CaptureFixture[str]) -> None:
    setting = Setting("sd1", 512, 1, "loha", False, Compute())
    large, small = Answering(INSTALLED, mortal=True), Answering(FROZEN)
    ours, found = compare_whole_steps(Answering(OURS), [large, small], setting, rounds=1, losses=1)
    report_steps(setting, ours, found)
    shown = capsys.readouterr().out
    assert f"| {INSTALLED.name} | {ENDED} |" in shown and f"| {FROZEN.name} | 1.00 (1.00–1.00) | 2.00 | 1.0 |" in shown
    with pytest.raises(WorkerDied, match=OURS.name):
        compare_whole_steps(Answering(OURS, mortal=True), [small], setting, rounds=1, losses=1)


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


def test_steps_of_a_card_are_timed_and_shown(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Simulated: on the CPU nothing is limited or reserved."""
    tiny = UNetShape((32, 64), 1, (1, 1), 1, 768, (8, 8))
    monkeypatch.setattr(cases, "_SMALL", replace(cases.family_of(SMALL), shape=tiny))
    task = {**TASK, "load": "card", "family": SMALL, "size_px": 32, "batch": 1}
    found = build_load(INSTALLED, task).steps(3)
    assert found["first_s"] > found["step_s"] > 0 == found["reserved_bytes"]
    report_on_card(
        [OnCard("theirs", "loha", 32, "checkpointing", **found), OnCard("ours", "loha", 32, "", 0, None, None)]
    )
    assert [line.split(" | ")[4] for line in capsys.readouterr().out.splitlines()[2:]] == [
        f"{1 / found['step_s']:.2f}",
        "runs out",
    ]


def test_figures_replace_those_of_the_page_and_nothing_else(tmp_path: Path) -> None:
    page = tmp_path / "speed.md"
    steps, layers = (f"{BEGIN.format(part=part)}\n\n`old`\n\n{END.format(part=part)}" for part in ("steps", "layers"))
    page.write_text(f"# Speed\n{steps}\n## More\n{layers}\n")
    write_page(page, "layers", "here", "python -m benchmarks speed", "All:\n\n| new |")
    new = layers.replace("`old`", "`python -m benchmarks speed`: here. All:\n\n| new |")
    assert page.read_text() == f"# Speed\n{steps}\n## More\n{new}\n"
    with pytest.raises(ValueError, match="no place for the figures of checkpointed-steps"):
        write_page(page, "checkpointed-steps", "here", "", "")


def test_half_precision_is_measured_where_it_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    for pays, dtype in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr(device, "cpu_is_faster_in_bf16", lambda pays=pays: pays)
        assert Compute.of_this_machine() == Compute("cpu", dtype)


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
