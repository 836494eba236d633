"""`train` and `resume` in the processes of torchrun: one writer, one answer, and files of one run."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
from contextlib import redirect_stdout
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

pytest.importorskip("diffusers")
pytest.importorskip("lycoris")
import lib_trainer.cli.resume
import lib_trainer.cli.train
import lib_trainer.host.standalone.host  # noqa: F401 - before the forks
from lib_trainer.cli import run_training
from lib_trainer.cli.main import main
from lib_trainer.events import Event, Step
from lib_trainer.jobs.history import RUNS_DIR, History
from tests.side_by_side import as_torchrun
from tests.training.test_processes import CLOSE

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")

SETTINGS = {
    "algo": "lokr", "network_dim": 4, "conv_dim": 0, "factor": 4, "optimizer": "AdamW", "max_train_steps": 4,
    "cache_latents_to_disk": "true", "validate_every_n_steps": 2, "held_out": "none", "resume_every_minutes": 1e-6,
    "sample_prompts": "jeff, a hat --s 1",
}  # fmt: skip


def train(pictures: Path, out: Path, **settings: object) -> list[str]:
    given = [part for key, value in {**SETTINGS, **settings}.items() for part in ("--set", f"{key}={value}")]
    return ["train", "lokr_style_config_8gb", "--data", str(pictures), "--name", "jeff", *given, "--out", str(out)]


def command(count: int, arguments: list[str], *, stopped_at: int = 0) -> list[tuple[int, str]]:
    """(exit code, what it printed) of the command in each process; Ctrl-C is pressed at step `stopped_at`."""

    def work(rank: int) -> tuple[int, str]:
        show = run_training._Bar.show

        def press(bar: object, event: Event) -> None:
            show(bar, event)
            if isinstance(event, Step) and event.number == stopped_at:
                # The terminal's and torchrun's.
                for _ in range(min(count, 2)):
                    os.kill(os.getpid(), signal.SIGINT)

        run_training._Bar.show = press
        engine = "lib_trainer.training.process_group"
        sys.modules.pop(engine)
        with redirect_stdout(io.StringIO()) as printed:
            code = main([*arguments, "--json"])
        assert (engine in sys.modules) == (count > 1), "without torchrun the distributed engine is not touched"
        return code, printed.getvalue()

    return as_torchrun(count, work)


def weights(out: Path) -> dict[str, torch.Tensor]:
    return load_file(out / "models" / "Lora" / "jeff.safetensors")


@pytest.fixture
def unbroken(embedded: Path, pictures: Path, tmp_path: Path) -> dict[str, torch.Tensor]:
    """Of one process with as many pictures a step as two have."""
    out = tmp_path / "alone"
    ((code, _),) = command(1, train(pictures, out, gradient_accumulation_steps=2))
    assert code == 0
    return weights(out)


def test_a_run_of_two_goes_on_by_one_and_by_two_again(unbroken, pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    stopped = command(2, train(pictures, out), stopped_at=1)
    assert [code for code, _ in stopped] == [130, 0]
    assert json.loads(stopped[0][1])["steps"] == 1, "the second Ctrl-C is the first one told again"
    assert command(1, ["resume", "--out", str(out)], stopped_at=3)[0][0] == 130
    (code, printed), (other, nothing) = command(2, ["resume", "--out", str(out)])
    assert (code, other, nothing) == (0, 0, "")
    assert json.loads(printed)["steps"] == SETTINGS["max_train_steps"]
    (past,) = History(out / "cache" / "train_lora" / RUNS_DIR).runs()
    assert (past.state, past.step) == ("done", SETTINGS["max_train_steps"])
    assert not list(out.rglob("*.part"))
    for name, value in weights(out).items():
        torch.testing.assert_close(value, unbroken[name], **CLOSE)


def test_a_mistake_is_told_once_and_ends_all(embedded: Path, pictures: Path, tmp_path: Path) -> None:
    (code, printed), (other, nothing) = command(2, train(pictures, tmp_path / "out", epohc=3))
    assert (code, other, nothing) == (2, 0, "")
    assert "epohc" in json.loads(printed)["error"]
