"""The command line itself, killed and started again in processes of its own.

They are forks of this one, which has imported what they need; `cli/test_run_training.py` starts the program anew.

`TRAIN_LORA_KILLS=20 pytest tests/test_killed_commands.py` kills at 20 random moments of a run instead of a few.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from bisect import bisect
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pytest

pytest.importorskip("diffusers")
pytest.importorskip("lycoris")
import lib_trainer.cli.train
import lib_trainer.host.standalone.host  # noqa: F401 - before the forks
from lib_trainer.cli.main import main
from lib_trainer.jobs.history import RUNS_DIR, History
from tests.killing import make_pictures, whole_files

KILLS, STEPS = int(os.environ.get("TRAIN_LORA_KILLS", "1")), 4
SETTINGS = {
    "algo": "lokr", "network_dim": 4, "conv_dim": 0, "factor": 4, "max_train_steps": STEPS, "noise_offset": 0.1,
    "flip_aug": "true", "shuffle_caption": "true", "validate_every_n_steps": 0, "save_every_n_steps": 2,
    "save_last_n_steps": 1, "resume_every_minutes": 1e-6, "cache_latents_to_disk": "true", "optimizer": "AdamW",
    "sample_prompts": "jeff_person, a hat --s 1",
}  # fmt: skip
PATIENCE_S = 120
LOOK_SECONDS = 0.05


@dataclass(frozen=True)
class Moment:
    """So many seconds after the line of step number `step` is written, 0 being the beginning of the run.

    Whatever it says, the last line is the last moment.
    """

    step: int
    seconds: float


class Folder:
    """Everything that the commands of one run write."""

    def __init__(self, out: Path, pictures: Path) -> None:
        self.out, self.lora_dir = out, out / "models" / "Lora"
        self._pictures = pictures

    @property
    def history(self) -> History:
        return History(self.out / "cache" / "train_lora" / RUNS_DIR)

    def run(self, kill: Moment | None = None) -> list[float]:
        """Begins the run or goes on with it, as one process -> when it came to each step, and when it was over.

        While it lives, nothing but whole files may be seen in the LoRA folder. Killed, it has no end.
        """
        process = multiprocessing.get_context("fork").Process(target=_command, args=(self._arguments(),))
        process.start()
        started, seen = time.monotonic(), []
        while process.is_alive():
            now = time.monotonic()
            assert now - started < PATIENCE_S, "the run hangs"
            seen += [now] * (self._written() + 1 - len(seen))
            if kill and (len(seen) > STEPS or (len(seen) > kill.step and now - seen[kill.step] >= kill.seconds)):
                process.kill()
            # A copy may make room for a newer one just now.
            with suppress(FileNotFoundError):
                whole_files(self.lora_dir)
            time.sleep(LOOK_SECONDS)
        process.join()
        whole_files(self.lora_dir)
        assert process.exitcode == (-signal.SIGKILL if kill else 0)
        return [*seen, time.monotonic()]

    def contents(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in whole_files(self.lora_dir)}

    def _arguments(self) -> list[str]:
        settings = [part for key, value in SETTINGS.items() for part in ("--set", f"{key}={value}")]
        train = ["train", "lokr_style_config_8gb", "--data", str(self._pictures), "--name", "jeff", *settings]
        return [*(["resume"] if self.history.runs() else train), "--out", str(self.out)]

    def _written(self) -> int:
        """Lines of steps that are written; -1 before the run has begun."""
        runs = self.history.runs()
        return len(self.history.losses(runs[0].id)) if runs else -1


def _command(arguments: list[str]) -> None:
    """The child's whole life."""
    os._exit(main(arguments))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="module")
def unbroken(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, bytes], list[float]]:
    """What a run leaves that was never broken, and its times."""
    folder = Folder(tmp_path_factory.mktemp("unbroken"), pictures)
    times = folder.run()
    assert list(folder.contents()) == [f"jeff-step{STEPS - 2:08}.safetensors", "jeff.safetensors"]
    return folder.contents(), times


@pytest.mark.parametrize("kill", range(KILLS))
def test_a_command_that_is_killed_is_gone_on_with(unbroken, pictures: Path, tmp_path: Path, kill: int) -> None:
    """Random moments, spread over the whole run: loading, caching, steps, copies on the way."""
    contents, times = unbroken
    at = times[0] + (times[-1] - times[0]) * (kill + random.Random(kill).random()) / KILLS
    step = min(bisect(times, at), STEPS) - 1
    folder = Folder(tmp_path, pictures)
    folder.run(Moment(step, min(at, times[STEPS]) - times[step]))
    # Nothing is left to do where only the end of the program was cut off.
    if folder.history.runs()[0].state != "done":
        folder.run()
    assert folder.contents() == contents
    assert [(past.state, past.step) for past in folder.history.runs()] == [("done", STEPS)]
    assert not list(folder.out.rglob("*.part"))
