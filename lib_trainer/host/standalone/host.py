"""A host of our own for machines without a WebUI: diffusers and transformers, no network."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import torch

from lib_trainer.errors import UserError
from lib_trainer.host.base import GenerateRequest, describe_checkpoint
from lib_trainer.host.standalone.images import infotext_of, next_path, save_picture
from lib_trainer.host.standalone.merge_lora import bundled_words, find_loras, list_loras, merged_loras, parse_prompt
from lib_trainer.host.standalone.model import StandaloneModel
from lib_trainer.host.standalone.pipeline import family_of, open_pipeline, sha256_of
from lib_trainer.host.standalone.txt2img import SAMPLERS, check_request, draw
from lib_trainer.lora.info import LoraInfo
from lib_trainer.models.base import CheckpointInfo, HostModel
from lib_trainer.models.families import Family
from lib_trainer.models.placement import MemoryProfile
from lib_trainer.utils.png import INFOTEXT_KEY

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from PIL.Image import Image

T = TypeVar("T")

_CPU = torch.device("cpu")
WEIGHTS = Path(__file__).parents[2] / "demo" / "weights"
"""The embedded model."""


class StandaloneHost:
    """Trains and draws with a checkpoint of its own.

    Args:
        out_dir: folder of all output; adapters go to `models/Lora` below it, as in a WebUI.
        checkpoint: an SD 1.x, SD 2.x or SDXL .safetensors file, or a diffusers folder; the embedded model if None.
    """

    name = "standalone"

    def __init__(self, out_dir: Path, checkpoint: Path | None = None) -> None:
        self.lora_dir = out_dir / "models" / "Lora"
        self.cache_dir = out_dir / "cache" / "train_lora"
        self.settings_file = out_dir / "train_lora.json"
        self.grid_dir = out_dir / "outputs" / "txt2img-grids"
        self.checkpoint = checkpoint or WEIGHTS
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        # Reentrant: whoever holds it may call `run_exclusive` again.
        self._lock = threading.RLock()

    @property
    def is_embedded(self) -> bool:
        return self.checkpoint == WEIGHTS

    @property
    def native_size_px(self) -> int:
        """Side of the square pictures that the checkpoint was trained on. Opens it."""
        return self._pipeline.unet.config.sample_size * 8

    @cached_property
    def _pipeline(self) -> DiffusionPipeline:
        if self.is_embedded and not (self.checkpoint / "model_index.json").is_file():
            raise UserError("The embedded model is not part of this installation.", "Name a checkpoint.")
        # Files hold half precision, in which a CPU computes slowly.
        return open_pipeline(self.checkpoint, torch.float32 if self.device == _CPU else torch.float16)

    @cached_property
    def _checkpoint_info(self) -> CheckpointInfo:
        name = "embedded" if self.is_embedded else self.checkpoint.name
        return CheckpointInfo(name, sha256_of(self.checkpoint))

    def run_exclusive(self, fn: Callable[[], T]) -> T:
        """fn() on the caller's thread, one caller at a time."""
        with self._lock:
            return fn()

    @contextmanager
    def open_model(self) -> Iterator[HostModel]:
        # The caller may be inside `no_grad`.
        with self._model() as model, torch.enable_grad():
            yield model

    @contextmanager
    def _model(self) -> Iterator[StandaloneModel]:
        with ExitStack() as undo:
            yield StandaloneModel(self._pipeline, self._checkpoint_info, self.device, undo)

    def generate(self, request: GenerateRequest) -> list[Image]:
        check_request(request)
        prompt, wanted = parse_prompt(request.prompt)
        # Before the model is touched: a typing error must not cost a minute of loading.
        files = find_loras(self.lora_dir, wanted)
        with (
            self._model() as model,
            merged_loras([*model.adaptable_layers(), *model.norm_layers(), *model.text_layers()], files),
            model.embeddings(bundled_words([path for path, _ in files])),
        ):
            pictures = draw(model, [prompt], request)
        sampler, checkpoint = request.sampler or next(iter(SAMPLERS)), self._checkpoint_info
        for index, picture in enumerate(pictures):
            picture.info[INFOTEXT_KEY] = infotext_of(request, sampler, checkpoint.name, checkpoint.sha256, index)
        return pictures

    def drawing(self, pictures: int) -> AbstractContextManager[None]:
        """Nothing to hold: there is one checkpoint only."""
        return nullcontext()

    def samplers(self) -> list[str]:
        return list(SAMPLERS)

    def schedulers(self) -> list[str]:
        return []

    def drawing_family(self) -> Family | None:
        """Opens the checkpoint, which its pictures need anyway."""
        return family_of(self._pipeline)

    def clip_skip(self) -> int:
        return 1

    def drawing_size_px(self) -> int | None:
        return self.native_size_px

    def loras(self, *, refresh: bool = False) -> list[LoraInfo]:
        """Scans the folder every time."""
        return list_loras(self.lora_dir)

    def save_grid(self, picture: Image, infotext: str, request: GenerateRequest) -> Path | None:
        path = next_path(self.grid_dir, request.seed)
        save_picture(path, picture, infotext)
        return path

    def label_font(self) -> Path | None:
        """None: the font that Pillow brings is used."""
        return None

    def bind_sending(self, button: Any, infotext: Any) -> bool:
        """False: there is no other page to send anything to."""
        return False

    def lora_changed(self, path: Path) -> None:
        """Nothing to do: adapters are read for every picture."""

    def word_problem(self, word: str) -> str:
        """ "": there are no embeddings but those in adapter files."""
        return ""

    def interrupted(self) -> bool:
        """False: only the caller can stop it."""
        return False

    def show_progress(self, step: int, steps: int, text: str) -> None:
        """Nothing to do: the caller shows progress."""

    def memory_profile(self) -> MemoryProfile | None:
        with self._model() as model:
            return model.memory_profile()

    def count_tokens(self, text: str) -> int | None:
        # Opening the checkpoint for a count would take longer than typing the caption.
        if "_pipeline" not in vars(self):
            return None
        return len(self._pipeline.tokenizer(text, add_special_tokens=False, verbose=False).input_ids)

    def captioners(self) -> list[Any]:
        return []

    def describe(self) -> str:
        """`embedded · SD 1.x · float32 · on the CPU`."""
        pipeline = self._pipeline
        dtype = str(pipeline.unet.dtype).removeprefix("torch.")
        memory = None if self.device == _CPU else torch.cuda.mem_get_info(self.device)
        return describe_checkpoint(self._checkpoint_info.name, [family_of(pipeline).label, dtype], memory)
