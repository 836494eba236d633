"""Opening checkpoints without a network: folders and single files give the very same model."""

from __future__ import annotations

import json
from functools import partial

import pytest
import torch
from safetensors.torch import save_file

from lib_trainer.errors import UserError
from lib_trainer.host.standalone import pipeline as standalone_files
from lib_trainer.host.standalone import tokenizer as standalone_tokenizer
from lib_trainer.host.standalone.pipeline import alphas_cumprod, family_of, open_pipeline, sha256_of
from lib_trainer.models.checkpoint_file import read_single_file
from lib_trainer.models.families import SD1, SD2, SDXL
from tests.host.tiny_pipelines import tiny_pipeline, tiny_tokenizer, write_single_file

FAMILIES = pytest.mark.parametrize("family", [SD1, SD2, SDXL], ids=lambda family: family.key)


@pytest.fixture(autouse=True)
def no_network(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(standalone_files, "clip_tokenizer", partial(tiny_tokenizer, tmp_path))


def answers(pipeline) -> list[torch.Tensor]:
    """What every part of a pipeline says to fixed inputs."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn((1, 4, 8, 8), generator=generator)
    tokens = torch.tensor([[512, 5, 7, 513]])
    with torch.no_grad():
        text = pipeline.text_encoder(tokens, output_hidden_states=True).hidden_states[-1]
        said, extra = [text], {}
        if family_of(pipeline) is SDXL:
            second = pipeline.text_encoder_2(tokens, output_hidden_states=True)
            text = torch.cat([text, second.hidden_states[-2]], dim=2)
            extra = {"added_cond_kwargs": {"text_embeds": second.text_embeds, "time_ids": torch.full((1, 6), 64.0)}}
            said.append(second.text_embeds)
        said.append(pipeline.unet(x, 500, encoder_hidden_states=text, **extra).sample)
        said.append(pipeline.vae.decode(x).sample)
        said.append(pipeline.vae.encode(torch.randn((1, 3, 64, 64), generator=generator)).latent_dist.mean)
    return said


@FAMILIES
def test_a_single_file_is_the_model_that_was_written(family, tmp_path):
    pipeline = tiny_pipeline(family, tmp_path)
    opened = open_pipeline(write_single_file(pipeline, family, tmp_path / "tiny.safetensors"), torch.float32)
    assert family_of(opened) is family
    for theirs, ours in zip(answers(pipeline), answers(opened), strict=True):
        torch.testing.assert_close(ours, theirs)
    torch.testing.assert_close(alphas_cumprod(opened), alphas_cumprod(pipeline))
    assert opened.vae.config.scaling_factor == family.latent_scale


@FAMILIES
def test_a_folder_is_the_model_that_was_written(family, tmp_path):
    pipeline = tiny_pipeline(family, tmp_path, prediction="v_prediction")
    pipeline.save_pretrained(tmp_path / "folder")
    opened = open_pipeline(tmp_path / "folder", torch.float32)
    assert family_of(opened) is family
    assert opened.scheduler.config.prediction_type == "v_prediction"
    for theirs, ours in zip(answers(pipeline), answers(opened), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize(
    ("change", "said"),
    [({"prediction_type": "sample"}, "predicts sample"), ({"use_flow_sigmas": True}, "predicts flow")],
)
def test_a_folder_that_predicts_something_else_is_refused(change, said, tmp_path):
    tiny_pipeline(SD1, tmp_path).save_pretrained(tmp_path / "folder")
    path = tmp_path / "folder" / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(UserError, match=f"folder {said}") as caught:
        open_pipeline(tmp_path / "folder", torch.float32)
    assert "epsilon" in caught.value.hint


def test_a_scheduler_of_flow_matching_is_refused(tmp_path):
    tiny_pipeline(SD1, tmp_path).save_pretrained(tmp_path / "folder")
    path = tmp_path / "folder" / "model_index.json"
    index = {**json.loads(path.read_text()), "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"]}
    path.write_text(json.dumps(index))
    (tmp_path / "folder" / "scheduler" / "scheduler_config.json").write_text(
        json.dumps({"_class_name": "FlowMatchEulerDiscreteScheduler"})
    )
    with pytest.raises(UserError, match="predicts flow"):
        open_pipeline(tmp_path / "folder", torch.float32)


def test_the_autoencoder_stays_in_float32(tmp_path):
    tiny_pipeline(SDXL, tmp_path).save_pretrained(tmp_path / "folder")
    opened = open_pipeline(tmp_path / "folder", torch.float16)
    assert (opened.unet.dtype, opened.text_encoder_2.dtype, opened.vae.dtype) == (
        torch.float16,
        torch.float16,
        torch.float32,
    )


def test_a_file_marked_so_predicts_v_with_zero_terminal_snr(tmp_path):
    path = write_single_file(tiny_pipeline(SDXL, tmp_path), SDXL, tmp_path / "v.safetensors", "v_pred", "ztsnr")
    opened = open_pipeline(path, torch.float32)
    assert opened.scheduler.config.prediction_type == "v_prediction"
    assert alphas_cumprod(opened)[-1] == pytest.approx(0, abs=1e-6)


def test_the_yaml_beside_a_file_says_v(tmp_path):
    path = write_single_file(tiny_pipeline(SD1, tmp_path), SD1, tmp_path / "v.safetensors")
    path.with_suffix(".yaml").write_text('model:\n  params:\n    parameterization: "v"\n')
    assert open_pipeline(path, torch.float32).scheduler.config.prediction_type == "v_prediction"


@pytest.mark.parametrize(("gives_noise_back", "prediction"), [(True, "epsilon"), (False, "v_prediction")])
def test_what_sd2_predicts_is_tried_out(gives_noise_back, prediction, tmp_path, monkeypatch):
    path = write_single_file(tiny_pipeline(SD2, tmp_path), SD2, tmp_path / "sd2.safetensors")
    forward = standalone_files.UNet2DConditionModel.forward

    def answer(unet, x, *args, **kwargs):
        output = forward(unet, x, *args, **kwargs)
        output.sample = x if gives_noise_back else -x.flip(-1)
        return output

    monkeypatch.setattr(standalone_files.UNet2DConditionModel, "forward", answer)
    assert open_pipeline(path, torch.float32).scheduler.config.prediction_type == prediction


def without(path, prefix):
    from safetensors.torch import load_file

    save_file({key: value for key, value in load_file(path).items() if not key.startswith(prefix)}, path)


@pytest.mark.parametrize(
    ("prefix", "said"),
    [
        ("model.diffusion_model.", "no Stable Diffusion UNet"),
        ("first_stage_model.", "autoencoder"),
        ("cond_stage_model.", "text encoders"),
    ],
)
def test_a_part_of_a_checkpoint_is_refused_by_name(prefix, said, tmp_path):
    path = write_single_file(tiny_pipeline(SD1, tmp_path), SD1, tmp_path / "part.safetensors")
    without(path, prefix)
    with pytest.raises(UserError, match=f"part.safetensors .*{said}"):
        open_pipeline(path, torch.float32)


@pytest.mark.parametrize(
    ("key", "shape", "said"),
    [
        ("model.diffusion_model.input_blocks.0.0.weight", (32, 9, 3, 3), "inpainting"),
        ("model.diffusion_model.double_blocks.0.img_attn.qkv.weight", (8, 8), "Flux"),
        ("model.diffusion_model.joint_blocks.0.x_block.attn.qkv.weight", (8, 8), "SD 3"),
    ],
)
def test_other_kinds_are_named(key, shape, said, tmp_path):
    save_file({key: torch.zeros(shape)}, tmp_path / "other.safetensors")
    with pytest.raises(UserError, match=said):
        read_single_file(tmp_path / "other.safetensors")


def test_what_is_no_checkpoint_is_said(tmp_path):
    (tmp_path / "broken.safetensors").write_bytes(b"no safetensors")
    (tmp_path / "empty").mkdir()
    (tmp_path / "flux").mkdir()
    (tmp_path / "flux" / "model_index.json").write_text(json.dumps({"_class_name": "FluxPipeline"}))
    for name, index in (("list", "[]"), ("nested", "[" * 100_000)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model_index.json").write_text(index)
    for name, said in {
        "list": "list is a model of no kind",
        "nested": "nested is a model of no kind",
        "broken.safetensors": "cannot be read",
        "empty": "not a diffusers folder",
        "flux": "FluxPipeline",
        "nowhere.safetensors": "no checkpoint at",
    }.items():
        with pytest.raises(UserError, match=said):
            open_pipeline(tmp_path / name, torch.float32)


def test_the_hash_is_that_of_the_weights(tmp_path):
    for folder, content in (("a", b"1"), ("b", b"1"), ("c", b"2")):
        (tmp_path / folder / "unet").mkdir(parents=True)
        (tmp_path / folder / "unet" / "weights.safetensors").write_bytes(content)
    hashes = [sha256_of(tmp_path / folder) for folder in "abc"]
    assert hashes[0] == hashes[1] != hashes[2]
    assert sha256_of(tmp_path / "a" / "unet" / "weights.safetensors") == hashes[0]


def test_missing_vocabulary_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(standalone_tokenizer, "PACKAGES", ("no_such_package",))

    def unreachable(*_args, **_kwargs):
        raise OSError("offline")

    monkeypatch.setattr(standalone_tokenizer.CLIPTokenizer, "from_pretrained", unreachable)
    with pytest.raises(UserError, match="pip install open_clip_torch"):
        standalone_tokenizer.clip_tokenizer("!")


def test_the_vocabulary_of_a_package_is_used(monkeypatch, tmp_path):
    import gzip
    import sys

    (tmp_path / "some_clip").mkdir()
    (tmp_path / "some_clip" / "__init__.py").write_text("raise ImportError('never imported')")
    with gzip.open(tmp_path / "some_clip" / standalone_tokenizer.VOCABULARY, "wt", encoding="utf-8") as file:
        file.write("#version: 0.2\nc a\nca t</w>\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    monkeypatch.setattr(standalone_tokenizer, "PACKAGES", ("some_clip",))
    tokenizer = standalone_tokenizer.clip_tokenizer("!")
    assert len(tokenizer) == 516
    assert tokenizer.convert_ids_to_tokens(tokenizer("cat", add_special_tokens=False)["input_ids"]) == ["cat</w>"]
    assert (tokenizer.pad_token, tokenizer.bos_token, tokenizer.eos_token) == ("!", "<|startoftext|>", "<|endoftext|>")
