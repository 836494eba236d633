"""The WebUIs' text-to-image, and where their grids go."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib_trainer.errors import UserError
from lib_trainer.host.base import GRID_NAME, GenerateRequest
from lib_trainer.host.webui.lock import InterruptFlags
from lib_trainer.host.webui.loras import require_networks
from lib_trainer.utils.patch import attributes
from lib_trainer.utils.png import INFOTEXT_KEY

if TYPE_CHECKING:
    from PIL.Image import Image

_AUTOMATIC = "Automatic"


def draw(request: GenerateRequest, flags: InterruptFlags) -> list[Image]:
    """Pictures through the WebUI's text-to-image, `<lora:…>` included; nothing is saved to its output folders.

    Raises:
        UserError: for a `<lora:…>`, sampler or scheduler that the WebUI does not have; it would drop or replace them
            without a message.
    """
    from modules import processing, shared

    # A Skip that was pressed during an earlier picture.
    flags.skip = False
    require_networks(request.prompt)
    _require("sampler", request.sampler, samplers())
    _require("schedule", request.scheduler, schedulers())
    job = make_job(request)
    # The WebUI's button for the last prompt must bring back what the person drew, not our sample prompts.
    with closing(job), attributes([shared.cmd_opts], no_prompt_history=True):
        processed = processing.process_images(job)
    if flags.cut_short():
        # The WebUI returns an interrupted picture half-drawn.
        return []
    pictures = list(processed.images)
    for picture, infotext in zip(pictures, processed.infotexts, strict=False):
        # With the option for infotexts in files off, `info` lacks it; the grid's labels and cards need it.
        picture.info[INFOTEXT_KEY] = infotext
    return pictures


def make_job(request: GenerateRequest) -> Any:
    """The WebUI's own description of a text-to-image job."""
    from modules import processing, scripts, shared

    job = processing.StableDiffusionProcessingTxt2Img(
        sd_model=shared.sd_model,
        prompt=request.prompt,
        negative_prompt=request.negative_prompt,
        seed=request.seed,
        width=request.width_px,
        height=request.height_px,
        steps=request.steps,
        cfg_scale=request.cfg_scale,
        sampler_name=request.sampler or samplers()[0],
        scheduler=request.scheduler or _AUTOMATIC,
        batch_size=request.batch_size,
        do_not_save_samples=True,
        do_not_save_grid=True,
    )
    # We run no scripts; but a job without a runner loses the prompt's `<lora:…>` in its infotext.
    job.scripts = scripts.ScriptRunner()
    return job


@contextmanager
def expected(pictures: int) -> Iterator[None]:
    """While entered, the WebUI's progress bar counts to this many pictures."""
    from modules import shared

    shared.state.job_count, shared.state.job_no = pictures, 0
    yield


def samplers() -> list[str]:
    from modules import sd_samplers

    return list(sd_samplers.visible_sampler_names())


def schedulers() -> list[str]:
    # A1111 before 1.9 has a sampler name for each schedule instead.
    if not find_spec("modules.sd_schedulers"):
        return []
    from modules import sd_schedulers

    return [scheduler.label for scheduler in sd_schedulers.schedulers]


def save_grid(picture: Image, infotext: str, request: GenerateRequest) -> Path | None:
    """Saves where and as the WebUI saves its grids; None if it is set to save none. Raises UserError when it fails."""
    from modules import shared

    if not shared.opts.grid_save:
        return None
    folder = shared.opts.outdir_grids or shared.opts.outdir_txt2img_grids
    try:
        path = save_as_grid(picture, folder, infotext, make_job(request))
    except OSError as error:
        message = f"The grid could not be saved: {error.strerror or error}."
        raise UserError(message, f"Make room in {folder}, or choose another folder in the settings.") from error
    return Path(path).absolute()


def save_as_grid(picture: Image, folder: str, infotext: str, job: Any) -> str:
    """Saves with the WebUI's own naming, format and infotext; returns the path. `job` fills the name's patterns."""
    from modules import images, shared

    opts = shared.opts
    path, _ = images.save_image(
        picture, folder, GRID_NAME, job.seed, job.prompt, opts.grid_format, info=infotext,
        short_filename=not opts.grid_extended_filename, grid=True, p=job,
    )  # fmt: skip
    return path


def label_font() -> Path | None:
    from modules import shared
    from modules.paths_internal import roboto_ttf_file

    return Path(getattr(shared.opts, "font", "") or roboto_ttf_file)


def bind_sending(button: Any, infotext: Any) -> bool:
    """Registers the button with the WebUI's own "Send to txt2img", which connects it when its page is built."""
    from modules import infotext_utils

    binding = infotext_utils.ParamBinding(
        paste_button=button, tabname="txt2img", source_text_component=infotext, source_image_component=None
    )
    infotext_utils.register_paste_params_button(binding)
    return True


def _require(kind: str, name: str, known: list[str]) -> None:
    if name and name not in known:
        raise UserError(f"There is no {kind} {name!r} here.", f"Choose one of {', '.join(known)}.")
