"""Opens a checkpoint as a diffusers pipeline: a diffusers folder or a single file, without asking the network."""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from pathlib import Path
from typing import Any, Literal

import diffusers
import torch
from diffusers import DDIMScheduler, DiffusionPipeline, UNet2DConditionModel
from torch import Tensor
from torch.nn import functional as F

from lib_trainer.errors import UserError
from lib_trainer.host.standalone.tokenizer import clip_tokenizer
from lib_trainer.models.checkpoint_file import SingleFile, read_single_file
from lib_trainer.models.families import SD1, SD2, SDXL, Family
from lib_trainer.utils.json_object import json_object

_PIPELINES = ("StableDiffusionPipeline", "StableDiffusionXLPipeline")
_END_MARK, _OPEN_CLIP_PAD = "<|endoftext|>", "!"
_CHUNK_BYTES = 2**24
_PREDICTIONS: dict[str, Literal["epsilon", "v"]] = {"epsilon": "epsilon", "v_prediction": "v"}


def open_pipeline(checkpoint: Path, dtype: torch.dtype) -> DiffusionPipeline:
    """The checkpoint on the CPU: UNet and text encoders in `dtype`, the autoencoder in float32.

    Raises:
        UserError: when it is neither a .safetensors file nor a folder of SD 1.x, SD 2.x or SDXL.
    """
    if checkpoint.is_dir():
        pipeline = _open_folder(checkpoint, dtype)
    elif checkpoint.is_file():
        pipeline = _open_single_file(checkpoint, dtype)
    else:
        raise UserError(f"There is no checkpoint at {checkpoint}.", "Name a .safetensors file or a diffusers folder.")
    prediction_of(pipeline, checkpoint.name)
    # SDXL's autoencoder overflows in half precision, and none is large.
    pipeline.vae.to(torch.float32)
    return pipeline


def family_of(pipeline: DiffusionPipeline) -> Family:
    """By what tells UNets of any size apart: SDXL embeds sizes, SD 2 has linear projections."""
    config = pipeline.unet.config
    if config.addition_embed_type == "text_time":
        return SDXL
    return SD2 if config.use_linear_projection else SD1


def prediction_of(pipeline: DiffusionPipeline, name: str = "The checkpoint") -> Literal["epsilon", "v"]:
    """What the UNet predicts. Raises UserError for a clean image (`sample`) and for flow matching."""
    config = pipeline.scheduler.config
    # Schedulers of flow matching have no such entry, or keep the default beside a switch.
    kind = "flow" if config.get("use_flow_sigmas") else config.get("prediction_type", "flow")
    found = _PREDICTIONS.get(kind)
    if found is None:
        raise UserError(
            f"{name} predicts {kind}, by its scheduler: it cannot be trained here.",
            "Choose a checkpoint that predicts noise (epsilon) or velocity (v_prediction).",
        )
    return found


def alphas_cumprod(pipeline: DiffusionPipeline) -> Tensor:
    """The noise schedule (T,) the checkpoint was trained with, float32."""
    return DDIMScheduler.from_config(pipeline.scheduler.config).alphas_cumprod.float()


def sha256_of(checkpoint: Path) -> str:
    """Hex hash of a single file, or of all weights of a folder in the order of their names."""
    files = [checkpoint] if checkpoint.is_file() else sorted(checkpoint.rglob("*.safetensors"))
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                digest.update(chunk)
    return digest.hexdigest()


def _open_folder(folder: Path, dtype: torch.dtype) -> DiffusionPipeline:
    try:
        index = json_object((folder / "model_index.json").read_bytes())
    except OSError as error:
        raise UserError(f"{folder} is not a diffusers folder.", "It must hold a model_index.json.") from error
    kind = index.get("_class_name", "model of no kind")
    if kind not in _PIPELINES:
        raise UserError(f"{folder.name} is a {kind}, which cannot be trained here.", "Choose SD 1.x, SD 2.x or SDXL.")
    try:
        return _class_of(kind).from_pretrained(
            folder, torch_dtype=dtype, local_files_only=True, **_without_extras(kind)
        )
    except (OSError, ValueError) as error:
        raise UserError(f"{folder.name} cannot be opened: {error}", "The folder may be incomplete.") from error


def _open_single_file(path: Path, dtype: torch.dtype) -> DiffusionPipeline:
    layout = read_single_file(path)
    tokenizers = {"tokenizer": clip_tokenizer(_OPEN_CLIP_PAD if layout.family is SD2 else _END_MARK)}
    if layout.family is SDXL:
        tokenizers["tokenizer_2"] = clip_tokenizer(_OPEN_CLIP_PAD)
    with tempfile.TemporaryDirectory() as folder:
        _write_configs(layout, Path(folder))
        pipeline = _class_of(layout.pipeline).from_single_file(
            str(path),
            config=folder,
            torch_dtype=dtype,
            local_files_only=True,
            # What the UNet predicts is known only when it is loaded: for SD 2 by trying it.
            scheduler=_scheduler(layout, "epsilon"),
            **tokenizers,
            **_without_extras(layout.pipeline),
        )
    pipeline.scheduler = _scheduler(layout, _prediction(layout, path, pipeline.unet))
    return pipeline


def _write_configs(layout: SingleFile, folder: Path) -> None:
    index: dict[str, Any] = {"_class_name": layout.pipeline, "scheduler": ["diffusers", "DDIMScheduler"]}
    for part, config in layout.configs.items():
        reads_text = part.startswith("text_encoder")
        # `from_single_file` asks the hub for these files unless a folder holds them.
        index[part] = ["transformers" if reads_text else "diffusers", config["_class_name"]]
        if reads_text:
            index[part.replace("text_encoder", "tokenizer")] = ["transformers", "CLIPTokenizer"]
        (folder / part).mkdir()
        (folder / part / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (folder / "model_index.json").write_text(json.dumps(index), encoding="utf-8")


def _scheduler(layout: SingleFile, prediction: str) -> DDIMScheduler:
    # Such models need the last timestep, which only trailing spacing visits.
    zero_snr = "ztsnr" in layout.marks
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type=prediction,
        rescale_betas_zero_snr=zero_snr,
        timestep_spacing="trailing" if zero_snr else "leading",
    )


def _prediction(layout: SingleFile, path: Path, unet: UNet2DConditionModel) -> str:
    """What the UNet predicts: by the file's own mark, by the .yaml beside it; for SD 2 by trying it."""
    beside = path.with_suffix(".yaml")
    says_v = "v_pred" in layout.marks or (
        beside.is_file()
        and re.search(r"parameterization:\s*[\"']?v\b", beside.read_text(encoding="utf-8", errors="replace"))
    )
    if says_v or (layout.family is SD2 and not beside.is_file() and not _predicts_noise(unet)):
        return "v_prediction"
    return "epsilon"


@torch.no_grad()
def _predicts_noise(unet: UNet2DConditionModel) -> bool:
    """Whether pure noise at the last timestep comes back as itself; a v model returns minus a picture."""
    # A size that every SD 2 UNet takes; seeded, so that the answer is the same every time.
    noise = torch.randn((1, 4, 32, 32), generator=torch.Generator().manual_seed(0)).to(unet.dtype)
    context = torch.zeros((1, 77, unet.config.cross_attention_dim), dtype=unet.dtype)
    answer = unet(noise, 999, encoder_hidden_states=context).sample
    return F.cosine_similarity(answer.float().flatten(), noise.float().flatten(), dim=0).item() > 0.5


def _class_of(name: str) -> type[DiffusionPipeline]:
    return getattr(diffusers, name)


def _without_extras(pipeline: str) -> dict[str, Any]:
    """Arguments that leave out the parts that training does not need."""
    if pipeline == "StableDiffusionPipeline":
        return {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    return {}
