"""What every WebUI does in the same way: opens its model, draws, lists LoRAs, shows progress."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from lib_trainer.host.base import GenerateRequest, describe_checkpoint
from lib_trainer.host.webui import embeddings, interrogate, loras, paths, tokens, txt2img
from lib_trainer.host.webui.lock import InterruptFlags, show_progress
from lib_trainer.host.webui.model import WebuiModel
from lib_trainer.host.webui.prompts import forget_prompts
from lib_trainer.host.webui.tagger_extension import extension_taggers
from lib_trainer.lora.info import LoraInfo
from lib_trainer.models.base import HostModel
from lib_trainer.models.families import Family
from lib_trainer.utils.patch import attributes

if TYPE_CHECKING:
    from PIL.Image import Image


class WebuiHost(ABC):
    """The part of `host.base.Host` that does not depend on how a WebUI holds its model.

    `loaded` is the WebUI's own object of a loaded checkpoint throughout.

    Attributes:
        reads_bundled_embeddings: it finds embeddings in LoRA files; others find them in their folder of embeddings.
    """

    reads_bundled_embeddings = False

    def __init__(self) -> None:
        self._open_model: WebuiModel | None = None
        self._flags = InterruptFlags()

    @abstractmethod
    def _load_selected(self) -> Any:
        """The object of the selected checkpoint, loaded through the WebUI if needed. Raises UserError."""

    @abstractmethod
    def _resident(self) -> Any:
        """The object of the checkpoint that is loaded now, selected or not; None while none is."""

    @abstractmethod
    def _is_selected(self, loaded: Any) -> bool:
        """Whether the next picture is drawn with this object, rather than with another that is loaded first."""

    @abstractmethod
    def _selected_name(self) -> str:
        """File name of the selected checkpoint; "" without one."""

    @abstractmethod
    def _known_family(self, loaded: Any) -> Family | None:
        """None for checkpoints of other families."""

    @abstractmethod
    def _trainable_family(self, loaded: Any) -> Family:
        """Raises UserError for a checkpoint that cannot be trained."""

    @abstractmethod
    def _storage(self, loaded: Any) -> str:
        """Number format in which the UNet is stored, e.g. `float16`."""

    @abstractmethod
    def _device_memory(self) -> tuple[int, int] | None:
        """Free and total bytes of the device; None for a CPU."""

    @abstractmethod
    def _wrap(self, loaded: Any, family: Family, undo: ExitStack) -> WebuiModel:
        """The model as training sees it; `undo` takes what restores the WebUI."""

    @abstractmethod
    def _take_out_loras(self, loaded: Any) -> None:
        """Restores the checkpoint's own weights; the next prompt with LoRAs merges them again."""

    @abstractmethod
    def _forget_lora_files(self, path: Path) -> None:
        """Drops the WebUI's cached content of this file."""

    @abstractmethod
    def _reload_embeddings(self, loaded: Any) -> None:
        """Reads the folder of embeddings anew."""

    @abstractmethod
    def _free_memory(self) -> None:
        """When the model is closed: nothing of ours stays on the device."""

    @abstractmethod
    def _drawing_with(self, loaded: Any) -> AbstractContextManager[None]:
        """While entered, the WebUI draws with this checkpoint, even if a person selects another one."""

    @contextmanager
    def open_model(self) -> Iterator[HostModel]:
        loaded = self._load_selected()
        family = self._trainable_family(loaded)
        with ExitStack() as stack:
            stack.callback(self._free_memory)
            # The generation thread is in inference mode, where nothing can be saved for backward.
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.enable_grad())
            # The thread may be under the WebUI's autocast; training chooses its own dtypes.
            stack.enter_context(torch.autocast("cpu", enabled=False))
            stack.enter_context(torch.autocast("cuda", enabled=False))
            # After a picture with <lora:…> the loaded weights are merged ones: we would train on top of that LoRA.
            self._take_out_loras(loaded)
            model = self._wrap(loaded, family, stack)
            stack.enter_context(attributes([self], _open_model=model))
            yield model

    def generate(self, request: GenerateRequest) -> list[Image]:
        if self._open_model is None:
            self._load_selected()
            return txt2img.draw(request, self._flags)
        loaded, pressed_before = self._open_model.loaded, self._flags.interrupted()
        with self._open_model.paused(), self._drawing_with(loaded):
            # The WebUI keeps conditioning by text alone, whatever is attached to the text encoders now or later.
            forget_prompts()
            try:
                return txt2img.draw(request, self._flags)
            finally:
                if not pressed_before:
                    # Interrupt while a sample is drawn means the sample: training continues.
                    self._flags.forget()
                forget_prompts()
                # A sample prompt may name LoRAs; training continues on the checkpoint's own weights.
                self._take_out_loras(loaded)

    @contextmanager
    def drawing(self, pictures: int) -> Iterator[None]:
        loaded = self._open_model.loaded if self._open_model else self._load_selected()
        with self._drawing_with(loaded), txt2img.expected(pictures):
            yield

    @property
    def lora_dir(self) -> Path:
        return paths.lora_dir()

    @property
    def cache_dir(self) -> Path:
        return paths.cache_dir()

    @property
    def settings_file(self) -> Path:
        return paths.settings_file()

    def samplers(self) -> list[str]:
        return txt2img.samplers()

    def schedulers(self) -> list[str]:
        return txt2img.schedulers()

    def drawing_family(self) -> Family | None:
        loaded = self._loaded()
        return None if loaded is None else self._known_family(loaded)

    def clip_skip(self) -> int:
        from modules import shared

        return int(shared.opts.CLIP_stop_at_last_layers)

    def drawing_size_px(self) -> int | None:
        family = self.drawing_family()
        return family.native_size_px if family else None

    def loras(self, *, refresh: bool = False) -> list[LoraInfo]:
        return loras.list_loras(refresh=refresh)

    def lora_changed(self, path: Path) -> None:
        self._forget_lora_files(path)
        loaded = self._resident()
        if loaded is not None:
            # Merged weights are known by the LoRA's name and strength: those of the old file would stay in.
            self._take_out_loras(loaded)
        if not self.reads_bundled_embeddings and embeddings.write_embeddings(path, paths.embeddings_dir()):
            self._reload_embeddings(loaded)
        forget_prompts()
        loras.refresh()

    def word_problem(self, word: str) -> str:
        other = embeddings.other_embedding(paths.embeddings_dir(), word)
        return f"the embedding {other.name} of this WebUI has that name; choose another word" if other else ""

    def save_grid(self, picture: Image, infotext: str, request: GenerateRequest) -> Path | None:
        return txt2img.save_grid(picture, infotext, request)

    def label_font(self) -> Path | None:
        return txt2img.label_font()

    def bind_sending(self, button: Any, infotext: Any) -> bool:
        return txt2img.bind_sending(button, infotext)

    def count_tokens(self, text: str) -> int | None:
        loaded = self._loaded()
        return None if loaded is None else tokens.count_tokens(loaded, text)

    def captioners(self) -> list[Any]:
        own = [interrogate.WebuiInterrogator(name) for name in (interrogate.BLIP, interrogate.DEEPBOORU)]
        return [*own, *extension_taggers()]

    def interrupted(self) -> bool:
        return self._flags.interrupted()

    def show_progress(self, step: int, steps: int, text: str) -> None:
        show_progress(step, steps, text)

    def _loaded(self) -> Any:
        """The object of the selected checkpoint if it is loaded already; else None."""
        loaded = self._resident()
        return loaded if loaded is not None and self._is_selected(loaded) else None

    def describe(self) -> str:
        loaded = self._loaded()
        if loaded is None:
            name = self._selected_name() or "no checkpoint"
            return describe_checkpoint(name, ["loaded when training starts"], self._device_memory())
        family = self._known_family(loaded)
        facts = [family.label if family else "cannot be trained here", self._storage(loaded)]
        return describe_checkpoint(loaded.sd_checkpoint_info.name, facts, self._device_memory())
