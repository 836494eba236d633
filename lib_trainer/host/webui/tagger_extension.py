"""The WD14 tagger extension, where it is installed: its own interrogators, by its own code.

toriato/stable-diffusion-webui-wd14-tagger and its forks keep them by name in `tagger.utils.interrogators`; each returns
(ratings, tags) with a probability a name. They fetch what is missing from Hugging Face: here they may not.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from lib_trainer.errors import MissingPackage, UserError
from lib_trainer.utils.booru_tags import spelled_out
from lib_trainer.utils.patch import attributes

if TYPE_CHECKING:
    from PIL.Image import Image

_PACKAGE = "tagger"


class ExtensionTagger:
    """One of the extension's interrogators as a captioner."""

    def __init__(self, name: str, interrogator: Any) -> None:
        self.label = f"WD14 extension: {name}"
        self._interrogator = interrogator

    def caption(self, picture: Image, threshold: float) -> str:
        """The tags above `threshold`, most probable first. Raises UserError where its weights are missing."""
        # Without the package it would install another one into the WebUI.
        if find_spec("onnxruntime") is None:
            raise MissingPackage("onnxruntime", self.label)
        with _nothing_fetched():
            try:
                _, tags = self._interrogator.interrogate(picture)
            except FileNotFoundError as error:
                # Also Hugging Face's LocalEntryNotFoundError.
                file = getattr(self._interrogator, "model_path", "model.onnx")
                text = f"{self.label} needs its weights ({file}), which are missing."
                raise UserError(text, "Use it once in the extension's own tab, which fetches them.") from error
        likely = sorted((item for item in tags.items() if item[1] >= threshold), key=lambda item: -item[1])
        return ", ".join(spelled_out(tag) for tag, _ in likely)


def extension_taggers() -> list[ExtensionTagger]:
    """The interrogators of the extension; none where it is not installed."""
    # Asked for, not imported: the name is a common one, and the extension's folder is on the path while it loads only.
    known = getattr(sys.modules.get(f"{_PACKAGE}.utils"), "interrogators", None)
    found = known.items() if isinstance(known, dict) else ()
    # DeepDanbooru projects have TensorFlow installed when they are first used.
    usable = [(n, one) for n, one in found if hasattr(one, "interrogate") and not hasattr(one, "project_path")]
    return [ExtensionTagger(str(name), one) for name, one in usable]


@contextmanager
def _nothing_fetched() -> Iterator[None]:
    """While entered, the extension finds files that are there, and downloads none."""
    modules = [module for name, module in list(sys.modules.items()) if name.split(".")[0] == _PACKAGE]
    users = [module for module in modules if callable(getattr(module, "hf_hub_download", None))]
    if not users:
        yield
        return
    with attributes(users, hf_hub_download=partial(users[0].hf_hub_download, local_files_only=True)):
        yield
