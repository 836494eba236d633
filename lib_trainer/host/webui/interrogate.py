"""The WebUI's own interrogators. Both fetch their weights when they are missing: we look first, and say which file."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib_trainer.errors import UserError

if TYPE_CHECKING:
    from PIL.Image import Image

BLIP, DEEPBOORU = "BLIP", "DeepBooru"
# Interrogator -> (folder below models, endings, the file's usual name).
_WEIGHTS = {
    BLIP: ("BLIP", (".pth", ".safetensors"), "model_base_caption_capfilt_large.pth"),
    DEEPBOORU: ("torch_deepdanbooru", (".pt",), "model-resnet_custom_v3.pt"),
}


class WebuiInterrogator:
    """One of the WebUI's interrogators as a captioner. Call it on the generation thread."""

    def __init__(self, name: str) -> None:
        self.label = name

    def caption(self, picture: Image, threshold: float) -> str:
        """A sentence of BLIP, or DeepBooru's tags above `threshold`. Raises UserError where its weights are missing."""
        require_weights(self.label)
        return _blip(picture) if self.label == BLIP else _deepbooru(picture, threshold)


def require_weights(name: str) -> None:
    """Raises UserError with the file that is missing and where it goes."""
    from modules import paths

    folder, endings, usual = _WEIGHTS[name]
    place = Path(paths.models_path) / folder
    if not any(path.suffix in endings and path.is_file() for path in place.rglob("*")):
        raise UserError(f"{name} needs the file {usual}, which is missing.", f"Put it into {place}.")


def _blip(picture: Image) -> str:
    from modules import shared

    interrogator = shared.interrogator
    # `interrogate` would go on with CLIP, which has weights of its own, and answers "<error>" whatever goes wrong.
    if interrogator.blip_model is None:
        interrogator.blip_model = interrogator.load_blip_model()
        if not getattr(shared.cmd_opts, "no_half", True) and not getattr(interrogator, "running_on_cpu", True):
            interrogator.blip_model = interrogator.blip_model.half()
    if interrogator.dtype is None:
        interrogator.dtype = next(interrogator.blip_model.parameters()).dtype
    device = _device_of(interrogator)
    interrogator.blip_model = interrogator.blip_model.to(device=device, dtype=interrogator.dtype)
    try:
        return interrogator.generate_caption(picture)
    finally:
        interrogator.blip_model.to("cpu")


def _device_of(interrogator: object) -> object:
    # The Forge family keeps it on the interrogator, A1111 in its list of devices.
    if hasattr(interrogator, "load_device"):
        return interrogator.load_device
    from modules import devices

    return devices.device_interrogate


def _deepbooru(picture: Image, threshold: float) -> str:
    from modules import deepbooru

    # Its settings are the person's own; ours hold for this picture.
    with _options(interrogate_deepbooru_score_threshold=threshold, interrogate_return_ranks=False):
        return deepbooru.model.tag(picture)


@contextmanager
def _options(**values: Any) -> Iterator[None]:
    """The WebUI's options with these values, set where it keeps them: as attributes they may be frozen."""
    from modules import shared

    data = shared.opts.data
    saved = {name: data[name] for name in values if name in data}
    data.update(values)
    try:
        yield
    finally:
        for name in values:
            data.pop(name, None)
        data.update(saved)
