"""A running Forge as the contract tests see it, and how the fake one is started and removed again."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from lib_trainer.host.base import GenerateRequest
from lib_trainer.host.forge import ForgeHost

T = TypeVar("T")

_ROOT = Path(__file__).parent / "forge"
_PACKAGES = ("backend", "modules", "modules_forge", "networks")


@dataclass(frozen=True)
class ForgeRoom:
    """A Forge, real or fake, with one checkpoint selected.

    Attributes:
        generation_thread: name of the thread that generates.
    """

    host: ForgeHost
    checkpoint: str
    generation_thread: str
    _drawn: dict[str, bytes] = field(default_factory=dict)

    @property
    def engine(self) -> Any:
        """Forge's own engine of the loaded checkpoint."""
        from modules.sd_models import model_data

        return model_data.get_sd_model()

    def run(self, fn: Callable[[], T]) -> T:
        return self.host.run_exclusive(fn)

    def request(self, prompt: str = "a photo", **changes: Any) -> GenerateRequest:
        # As small as can be, for machines without a GPU.
        small = {"width_px": 64, "height_px": 64, "steps": 1, "cfg_scale": 1.0, "seed": 7}
        return GenerateRequest(prompt, **{**small, **changes})

    def picture(self, prompt: str = "a photo", **changes: Any) -> bytes:
        """One picture's pixels, on the generation thread."""
        return self.run(lambda: self.host.generate(self.request(prompt, **changes))[0].tobytes())

    def clean_picture(self) -> bytes:
        """The picture without any adapter, as it was drawn when the tests first asked: before anything was borrowed."""
        if "clean" not in self._drawn:
            self._drawn["clean"] = self.picture()
        return self._drawn["clean"]

    def select(self, checkpoint: str = "", storage: str = "Automatic") -> None:
        """As a person does at the top of the page; what is selected is loaded when it is needed."""
        from modules import shared
        from modules_forge import main_entry

        # "Original" divides by the mean of the hidden states, which is zero in checkpoints of random weights.
        shared.opts.data["emphasis"] = "No norm"
        shared.opts.data["sd_model_checkpoint"] = checkpoint or self.checkpoint
        shared.opts.data["forge_unet_storage_dtype"] = storage
        main_entry.refresh_model_loading_parameters()


@contextmanager
def fake_forge(folder: Path, checkpoint: str) -> Iterator[ForgeRoom]:
    """The fake Forge, started in `folder` with a checkpoint per family; its packages are gone on exit."""
    for part in ("Lora", "Stable-diffusion"):
        (folder / part).mkdir(parents=True)
    for name, facts in _CHECKPOINTS.items():
        (folder / "Stable-diffusion" / name).write_text(json.dumps({"seed": 0, **facts}))
    sys.path.insert(0, str(_ROOT))
    try:
        from modules import paths_internal, sd_models, shared
        from modules_forge import main_thread

        paths_internal.data_path = str(folder)
        shared.cmd_opts.lora_dir = str(folder / "Lora")
        shared.cmd_opts.ckpt_dir = str(folder / "Stable-diffusion")
        shared.opts.outdir_txt2img_grids = str(folder / "txt2img-grids")
        sd_models.list_models()
        thread = threading.Thread(target=main_thread.loop, name="generation", daemon=True)
        thread.start()
        try:
            room = ForgeRoom(ForgeHost(), checkpoint, thread.name)
            room.select()
            yield room
        finally:
            main_thread.stopped.set()
            thread.join()
    finally:
        sys.path.remove(str(_ROOT))
        for name in list(sys.modules):
            if name.partition(".")[0] in _PACKAGES:
                del sys.modules[name]


_CHECKPOINTS = {
    "sd1.safetensors": {"family": "sd1"},
    "sd1-fp16.safetensors": {"family": "sd1", "storage": "float16"},
    "sd1-other.safetensors": {"family": "sd1", "seed": 1},
    "sd1-inpainting.safetensors": {"family": "sd1", "inpaint": True},
    "sd2-v.safetensors": {"family": "sd2", "prediction_type": "v_prediction", "ztsnr": True},
    "sd3.safetensors": {"family": "sd3"},
    "sdxl.safetensors": {"family": "sdxl"},
}
