"""What makes captions, and how they are put together and written."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from PIL import Image

from lib_trainer.dataset.editing.sidecar import CaptionConflict, caption_file, read_sidecar, write_sidecar
from lib_trainer.dataset.editing.tags import add, remove, split_tags
from lib_trainer.dataset.images import UnreadablePicture, open_picture, shown_name
from lib_trainer.errors import UserError


class Captioner(Protocol):
    """One model that captions pictures."""

    label: str

    def caption(self, picture: Image.Image, threshold: float) -> str:
        """A sentence, or tags between commas with those above `threshold`.

        Raises:
            UserError: its weights are missing; the sentence names the file and its place.
        """


@dataclass(frozen=True)
class CaptionPlan:
    """How captions are made.

    Attributes:
        prefix, postfix: tags before and after, usually the trigger word before.
        excluded: tags that are left out.
        only_missing: pictures with a caption keep it.
        threshold: of a tagger, 0 to 1.
    """

    prefix: str = ""
    postfix: str = ""
    excluded: str = ""
    only_missing: bool = True
    threshold: float = 0.35


@dataclass(frozen=True)
class Captioned:
    """One picture is done: `done` of `total`; `text` is its caption, "" where `problem` says why there is none."""

    image: Path
    done: int
    total: int
    text: str = ""
    problem: str = ""


def caption_pictures(
    images: Iterable[Path],
    endings: tuple[str, ...],
    captioner: Captioner,
    plan: CaptionPlan,
    run: Callable[[Callable[[], str]], str] = lambda make: make(),
) -> Iterator[Captioned]:
    """Captions each picture in turn; whoever stops asking stops it.

    Args:
        endings: of caption files, as `captions.caption_endings` gives them.
        run: calls what it is given where the captioner may work, such as on a WebUI's generation thread.

    Raises:
        UserError: the captioner's weights are missing, before anything is written.
    """
    listed = list(images)
    for number, image in enumerate(listed, start=1):
        path = caption_file(image, endings)
        before = read_sidecar(path)
        if before.problem or (plan.only_missing and before.text.strip()):
            yield Captioned(image, number, len(listed), problem=before.problem or "it has a caption")
            continue
        try:
            picture = open_picture(image)
        except UnreadablePicture as error:
            yield Captioned(image, number, len(listed), problem=error.reason)
            continue
        text = compose(run(lambda picture=picture: captioner.caption(picture, plan.threshold)), plan)
        if not text:
            yield Captioned(image, number, len(listed), problem="nothing was recognised")
            continue
        try:
            write_sidecar(path, text, before.version)
        except CaptionConflict:
            # Somebody has typed one meanwhile, who knows better.
            yield Captioned(image, number, len(listed), problem="its caption was changed meanwhile")
            continue
        yield Captioned(image, number, len(listed), text)


def compose(made: str, plan: CaptionPlan) -> str:
    """The caption of a picture: prefix, what was recognised without what is excluded, postfix; each tag once."""
    kept = remove(", ".join(split_tags(made)), split_tags(plan.excluded))
    return add(add(", ".join(split_tags(plan.prefix)), split_tags(kept)), split_tags(plan.postfix))


def missing_weights(label: str, file: Path) -> UserError:
    """The one sentence for weights that are not there."""
    return UserError(f"{label} needs the file {shown_name(file)}, which is missing.", f"Put it into {file.parent}.")
