"""Draws a grid's pictures through the host, one after another."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from PIL import ImageChops, ImageStat
from PIL.Image import Image

from lib_trainer.errors import UserError
from lib_trainer.host.base import GenerateRequest, Host
from lib_trainer.lora.lookup import require_loras
from lib_trainer.preview.grid_spec import Cell, GridSpec
from lib_trainer.preview.picture_file import PictureFile, PictureFolder
from lib_trainer.utils.png import INFOTEXT_KEY


@dataclass(frozen=True)
class Drawn:
    """A cell with its picture.

    Attributes:
        file: the picture, on disk for as long as anybody refers to it.
        infotext: the host's description of the picture, as "PNG Info" shows it.
        change: mean difference of its pixels from strength 0 in the same row, in per cent of the range from black to
            white; None without a picture to compare with. It says how much changed, not whether for the better.
    """

    cell: Cell
    file: PictureFile
    infotext: str
    change: float | None = None

    @property
    def picture(self) -> Image:
        """Read from its file each time."""
        return self.file.open()


def check_names(host: Host, spec: GridSpec) -> None:
    """Raises UserError for a LoRA that is not there, that no prompt can call, or that does not fit the checkpoint."""
    prompts = [cell.request.prompt for cell in spec.cells]
    try:
        require_loras(prompts, host.loras(), host.drawing_family())
    except UserError:
        # The file may have been added or renamed since the host listed the folder.
        require_loras(prompts, host.loras(refresh=True), host.drawing_family())


def draw_cells(host: Host, spec: GridSpec, stopped: Callable[[], bool] = lambda: False) -> Iterator[Drawn]:
    """Draws until all is drawn, `stopped()` says so, or the host is interrupted. Call it inside `run_exclusive`.

    A picture that was interrupted half-way is not among them, and one that is the same as another is drawn once.

    Raises:
        UserError: as `check_names`, before the first picture is drawn.
    """
    # At strength 0 all LoRAs give the same picture.
    drawn: dict[GenerateRequest, tuple[PictureFile, str]] = {}
    folder = PictureFolder()
    with host.drawing(len({cell.request for cell in spec.cells})):
        # The checkpoint is loaded now, so that its family is known.
        check_names(host, spec)
        baseline_row, baseline = -1, None
        for cell in _in_order(spec):
            if stopped() or host.interrupted():
                return
            if cell.request not in drawn:
                # Empty after Skip: the cell stays grey and the grid continues.
                made = host.generate(cell.request)
                if not made:
                    continue
                drawn[cell.request] = folder.keep(made[0]), str(made[0].info.get(INFOTEXT_KEY, ""))
            file, infotext = drawn[cell.request]
            change = None
            # Of all pictures only the one of strength 0 stays in memory, for its row.
            if cell.column == spec.baseline:
                baseline_row, baseline = cell.row, file.open()
            elif baseline is not None and baseline_row == cell.row:
                change = difference(baseline, file.open())
            yield Drawn(cell, file, infotext, change)


def difference(one: Image, other: Image) -> float:
    """Mean absolute difference of two pictures of one size: 0 for the same, 100 for black against white."""
    means = ImageStat.Stat(ImageChops.difference(one.convert("RGB"), other.convert("RGB"))).mean
    return 100 * sum(means) / len(means) / 255


def _in_order(spec: GridSpec) -> list[Cell]:
    """Row by row; the picture of strength 0 comes first, because the others of its row are compared with it."""
    return sorted(spec.cells, key=lambda cell: (cell.row, cell.column != spec.baseline))
