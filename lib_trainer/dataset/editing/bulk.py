"""One change to many captions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lib_trainer.dataset.editing import tags
from lib_trainer.errors import UserError

ACTIONS = ("first", "add", "remove", "replace", "sort", "dedupe")


@dataclass(frozen=True)
class Change:
    """What is to be done to captions.

    Attributes:
        action: one of `ACTIONS`.
        text: the trigger word, the tags between commas, or what is replaced.
        new: what replaces it.
    """

    action: str
    text: str = ""
    new: str = ""

    def __post_init__(self) -> None:
        if self.action not in ACTIONS:
            raise UserError(f"{self.action[:40]!r} is not something that is done to captions.", ", ".join(ACTIONS))
        if self.action in ("first", "add", "remove", "replace") and not self.text.strip():
            raise UserError("There is no text to work with.", "Type the tag or the words first.")

    def apply(self, caption: str) -> str:
        """The caption file's text after the change, line by line; unchanged where there is nothing to do."""
        if not caption.strip():
            # A picture without a caption gets one only from what adds text.
            return self.text.strip() if self.action in ("first", "add") else caption
        lines = caption.splitlines()
        changed = [self._on_line()(line) if line.strip() else line for line in lines]
        return caption if changed == lines else "\n".join(changed)

    def _on_line(self) -> Callable[[str], str]:
        listed = tags.split_tags(self.text)
        return {
            "first": lambda line: tags.put_first(line, self.text.strip()),
            "add": lambda line: tags.add(line, listed),
            "remove": lambda line: tags.remove(line, listed),
            "replace": lambda line: tags.replace_text(line, self.text, self.new),
            "sort": tags.sort_tags,
            "dedupe": tags.dedupe,
        }[self.action]
