"""What a page asks to change in an open folder. Commands come from a browser, so every value is checked."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lib_trainer.captioning.captioner import Captioned, Captioner, CaptionPlan
from lib_trainer.dataset.checks.faces import face_finder
from lib_trainer.dataset.editing.bulk import Change
from lib_trainer.dataset.editing.sidecar import Caption, CaptionConflict, read_sidecar, remove_sidecar, write_sidecar
from lib_trainer.dataset.edits import PictureEdit, change_edits, read_edits, valid_crop
from lib_trainer.dataset.images import shown_name
from lib_trainer.errors import UserError
from lib_trainer.workbench.auto_captions import AutoCaptions
from lib_trainer.workbench.open_folder import MOST_AT_ONCE, OpenFolder

_MOST_UNDONE = 100
MOST_BYTES = 2**20


@dataclass(frozen=True)
class _Done:
    """One change of a caption: from what, to what."""

    number: int
    path: Path
    before: Caption
    after: Caption


@dataclass(frozen=True)
class _Decided:
    """One change of what is decided about a picture."""

    number: int
    before: PictureEdit


class Commands:
    """The changes of one page in one folder, and the way back from them."""

    def __init__(self, folder: OpenFolder, auto: AutoCaptions, captioners: Callable[[], list[Captioner]]) -> None:
        self._folder, self.auto, self._captioners = folder, auto, captioners
        self._undo: list[list[_Done | _Decided]] = []
        # Two events of one page may come at once.
        self._lock = threading.Lock()

    def run(self, values: dict[str, Any]) -> dict[str, Any]:
        """Does what `do` names. `changed` are the pictures as they stand now, `message` a sentence.

        Raises:
            UserError: nothing, or only the part that the sentence names, was changed.
        """
        actions: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "caption": self._caption, "bulk": self._bulk, "exclude": self._exclude, "crop": self._crop,
            "undo": self._undo_last, "auto": self._start_auto, "auto_stop": self._stop_auto,
            "faces": self._keep_faces, "regularise": self._regularise,
        }  # fmt: skip
        action = actions.get(str(values.get("do")))
        if action is None:
            raise UserError("The page asks for something that is not known here.", "Reload the page.")
        with self._lock:
            return action(values)

    def _caption(self, values: dict[str, Any]) -> dict[str, Any]:
        number, text, version = values.get("number"), values.get("text"), values.get("version")
        if not isinstance(text, str) or not isinstance(version, str):
            raise UserError("The page sent no caption.", "Reload the page.")
        path = self._folder.image(number) and self._folder.sidecar(number)
        before = self._folder.caption(number)
        try:
            after = write_sidecar(path, text, version)
        except CaptionConflict as conflict:
            # Both texts are in the page then: nothing is lost, and the person decides.
            return {"conflict": self._folder.describe(number), "message": str(conflict)}
        self._remember([_Done(number, path, before, after)])
        return self._answer([number], "")

    def _bulk(self, values: dict[str, Any]) -> dict[str, Any]:
        change = Change(str(values.get("action")), str(values.get("text", "")), str(values.get("new", "")))
        numbers = values.get("numbers")
        if numbers is not None and not (isinstance(numbers, list) and all(type(n) is int for n in numbers)):
            raise UserError("The page sent no list of pictures.", "Reload the page.")
        done: list[_Done | _Decided] = []
        failed: list[str] = []
        for number in self._folder.chosen(str(values.get("tag", "")), numbers):
            before = self._folder.caption(number)
            text = change.apply(before.text)
            if text == before.text and not before.problem:
                continue
            path = self._folder.sidecar(number)
            try:
                done.append(_Done(number, path, before, write_sidecar(path, text, before.version)))
            except UserError as error:
                failed.append(error.message)
        self._remember(done)
        said = f"{len(done)} caption{'s' * (len(done) != 1)} changed."
        return self._answer([item.number for item in done], f"{said} {failed[0]}" if failed else said)

    def _start_auto(self, values: dict[str, Any]) -> dict[str, Any]:
        label = str(values.get("captioner"))
        captioner = next((one for one in self._captioners() if one.label == label), None)
        if captioner is None:
            raise UserError(f"There is no captioner {label[:80]!r}.", "Open the folder again to see those there are.")
        threshold = values.get("threshold")
        if isinstance(threshold, bool) or not isinstance(threshold, (int, float)) or not 0 < threshold < 1:
            raise UserError("The threshold is not a number between 0 and 1.", "0.35 is usual.")
        texts = [str(values.get(name, "")) for name in ("prefix", "postfix", "exclude")]
        plan = CaptionPlan(*texts, values.get("only_missing") is not False, float(threshold))
        folder = self._folder
        numbers = [number for number in folder.chosen() if not folder.edit(number).excluded]
        before = {folder.image(number): (number, folder.sidecar(number), folder.caption(number)) for number in numbers}

        def done(made: list[Captioned]) -> None:
            found = [before[item.image] for item in made]
            self._remember([_Done(n, path, caption, read_sidecar(path)) for n, path, caption in found])

        self.auto.start(list(before), folder.endings, captioner, plan, done)
        return self._answer([], "")

    def _stop_auto(self, _values: dict[str, Any]) -> dict[str, Any]:
        self.auto.stop()
        return self._answer([], "")

    def _exclude(self, values: dict[str, Any]) -> dict[str, Any]:
        number = values.get("number")
        return self._decide(number, lambda edit: replace(edit, excluded=values.get("excluded") is True))

    def _crop(self, values: dict[str, Any]) -> dict[str, Any]:
        try:
            crop = valid_crop(values.get("crop"))
        except (TypeError, ValueError) as error:
            raise UserError("That part is too small to be trained on.", "Drag a larger one.") from error
        return self._decide(values.get("number"), lambda edit: replace(edit, crop=crop))

    def _regularise(self, values: dict[str, Any]) -> dict[str, Any]:
        folder = next((one for one in self._folder.folders() if shown_name(one) == values.get("folder")), None)
        if folder is None:
            raise UserError("There is no such folder.", "Press Scan again.")
        change_edits(folder, {}, regularisation=values.get("on") is True)
        return self._answer([], f"{shown_name(folder)} {'regularises' if values.get('on') is True else 'is trained'}.")

    def _keep_faces(self, _values: dict[str, Any]) -> dict[str, Any]:
        finder = face_finder()
        if finder is None:
            raise UserError("Faces are found with OpenCV, which is not installed here.", "Drag the crops by hand.")
        crops = self._folder.face_crops(finder)
        step: list[_Done | _Decided] = []
        for number, crop in crops.items():
            image = self._folder.image(number)
            before = read_edits(image.parent).of(image.name)
            change_edits(image.parent, {image.name: replace(before, crop=crop)})
            step.append(_Decided(number, before))
        self._remember(step)
        return self._answer(list(crops), f"{len(crops)} cropped so that the face stays in.")

    def _decide(self, number: Any, change: Callable[[PictureEdit], PictureEdit]) -> dict[str, Any]:
        image = self._folder.image(number)
        before = read_edits(image.parent).of(image.name)
        change_edits(image.parent, {image.name: change(before)})
        self._remember([_Decided(number, before)])
        return self._answer([number], "")

    def _undo_last(self, _values: dict[str, Any]) -> dict[str, Any]:
        if not self._undo:
            return self._answer([], "There is nothing to undo.")
        step, failed = self._undo.pop(), []
        for item in step:
            try:
                self._take_back(item)
            except UserError as error:
                # Somebody else's later change stays.
                failed.append(error.message)
        said = f"{len(step) - len(failed)} undone."
        return self._answer([item.number for item in step], f"{said} {failed[0]}" if failed else said)

    def _take_back(self, item: _Done | _Decided) -> None:
        if isinstance(item, _Decided):
            image = self._folder.image(item.number)
            change_edits(image.parent, {image.name: item.before})
        elif item.before.version:
            write_sidecar(item.path, item.before.text, item.after.version)
        else:
            remove_sidecar(item.path, item.after.version)

    def _remember(self, step: list[_Done | _Decided]) -> None:
        if step:
            self._undo = [*self._undo[1 - _MOST_UNDONE :], step]

    def _answer(self, numbers: list[int], message: str) -> dict[str, Any]:
        # A page shows a part of a large folder, and asks again for the rest.
        changed = [self._folder.describe(number) for number in numbers[:MOST_AT_ONCE]]
        return {"changed": changed, "message": message, "count": len(numbers), "undo": len(self._undo)}


def read_command(text: str) -> dict[str, Any]:
    """A command as a page sends it. Raises UserError for anything else."""
    if len(text) > MOST_BYTES:
        raise UserError("That is more than a caption can hold.", "Shorten it.")
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError("The page sent something that is not a command.", "Reload the page.") from error
    if not isinstance(values, dict):
        raise UserError("The page sent something that is not a command.", "Reload the page.")
    return values
