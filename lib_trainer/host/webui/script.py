"""A script of the WebUI's txt2img list: draws its job once for each prompt, and returns the WebUI's own result."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from copy import copy
from typing import TYPE_CHECKING, Any

from lib_trainer.host.webui.txt2img import save_as_grid

if TYPE_CHECKING:
    from PIL.Image import Image


def seeds_of(job: Any) -> list[int]:
    """The seeds of the job's pictures: batch count × batch size, from its first on. A random one is fixed first."""
    from modules import processing

    processing.fix_seed(job)
    return [int(job.seed) + index for index in range(job.n_iter * job.batch_size)]


def draw_each(job: Any, wanted: Sequence[tuple[str, int]]) -> Iterator[tuple[int, Image, str]]:
    """(index, picture, infotext) of every (prompt, seed), all else as the person has set it for `job`.

    Interrupt ends it; an unfinished picture is left out.
    """
    from modules import processing, shared

    state = shared.state
    state.job_count = len(wanted)
    for index, (prompt, seed) in enumerate(wanted):
        if state.interrupted or state.stopping_generation:
            return
        one = copy(job)
        one.prompt, one.seed, one.n_iter, one.batch_size = prompt, seed, 1, 1
        # Drawing a picture changes these in place, which the next copy would inherit.
        one.styles, one.extra_generation_params = list(job.styles), dict(job.extra_generation_params)
        one.do_not_save_grid = True
        processed = processing.process_images(one)
        if processed.images and not (state.interrupted or state.skipped):
            yield index, processed.images[0], processed.infotexts[0]


def result_of(job: Any, grid: Image | None, infotext: str, drawn: Sequence[tuple[Image, str]]) -> Any:
    """The WebUI's `Processed`: the grid, saved as it saves its own, and then every picture."""
    from modules import processing, shared

    pictures, infotexts = [picture for picture, _ in drawn], [text for _, text in drawn]
    if grid is None:
        return processing.Processed(job, pictures, job.seed, "", infotexts=infotexts)
    if shared.opts.grid_save:
        save_as_grid(grid, job.outpath_grids, infotext, job)
    job.all_prompts, job.all_seeds = [job.prompt] * len(drawn), [job.seed] * len(drawn)
    return processing.Processed(
        job, [grid, *pictures], job.seed, infotext, infotexts=[infotext, *infotexts], index_of_first_image=1
    )
