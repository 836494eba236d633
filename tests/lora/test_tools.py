"""Resize, merge, merge into a checkpoint and extract: the result changes a model as its sources do."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from lib_trainer.adapter.attach import Adapter, new_adapter
from lib_trainer.adapter.io import adapter_tensors, read_adapter, save_adapter
from lib_trainer.adapter.modules import AdapterModule
from lib_trainer.cli.main import main
from lib_trainer.config.recipe import AdapterConfig
from lib_trainer.errors import UserError
from lib_trainer.host.standalone import pipeline
from lib_trainer.host.standalone.merge_lora import merged_loras
from lib_trainer.host.standalone.pipeline import open_pipeline
from lib_trainer.lora.svd import Cut, split
from lib_trainer.lora.tools import Target, extract_lora, merge_into_checkpoint, merge_loras
from lib_trainer.models.families import SD1, SD2, SDXL, Family
from tests.host.standalone_models import FAMILIES, inputs, model_of
from tests.host.tiny_pipelines import tiny_pipeline, tiny_tokenizer, write_single_file

CONFIGS = {
    "loha": AdapterConfig(network_dim=2, network_alpha=1, conv_dim=2),
    "lokr": AdapterConfig(algo="lokr", network_dim=2, conv_dim=2, factor=4, use_tucker=True),
    "locon": AdapterConfig(algo="locon", network_dim=3, network_alpha=2, conv_dim=2),
    "locon tucker": AdapterConfig(algo="locon", network_dim=3, conv_dim=2, use_tucker=True),
    "locon with norms": AdapterConfig(algo="locon", network_dim=3, network_alpha=2, conv_dim=2, train_norm=True),
    "locon decomposed": AdapterConfig(algo="locon", network_dim=3, network_alpha=2, conv_dim=2, dora_wd=True),
}


def random_adapter(model, path: Path, config: AdapterConfig, seed: int) -> Path:
    # A third of them has every kind: each takes its time to be factored.
    layers = [*model.adaptable_layers(), *model.norm_layers(), *model.text_layers()][::3]
    adapter = new_adapter(layers, config, seed, model.read_weight)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in (factor for module in adapter.layers.values() for factor in module.tensors.values()):
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    save_adapter(path, adapter_tensors(adapter, "fp32"), {"ss_base_model_version": "sd_v1"})
    return path


def answers(model) -> tuple[Tensor, ...]:
    with torch.no_grad():
        x_t, t, text, sizes = inputs(model)
        return text.context, model.predict(x_t, t, text, sizes)


def changed(model, files: list[tuple[Path, float]]) -> tuple[Tensor, ...]:
    with merged_loras([*model.adaptable_layers(), *model.norm_layers(), *model.text_layers()], files):
        return answers(model)


def close(left: tuple[Tensor, ...], right: tuple[Tensor, ...], rtol: float = 1e-2) -> bool:
    return all(float((a - b).norm()) < rtol * float(b.norm()) for a, b in zip(left, right, strict=True))


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(pipeline, "clip_tokenizer", partial(tiny_tokenizer, tmp_path))


@pytest.fixture(params=list(FAMILIES.args[1]), ids=lambda family: family.key)
def family(request: pytest.FixtureRequest) -> Family:
    return request.param


@pytest.fixture
def checkpoint(family: Family, tmp_path: Path) -> Path:
    return write_single_file(tiny_pipeline(family, tmp_path), family, tmp_path / "base.safetensors")


@pytest.fixture
def model(checkpoint: Path):
    return model_of(open_pipeline(checkpoint, torch.float32), ExitStack())


# Families differ in names and shapes, kinds in what is decomposed.
@pytest.mark.parametrize(
    ("family", "kind"),
    [*((SD1, kind) for kind in CONFIGS), (SD2, "lokr"), (SDXL, "locon with norms")],
    indirect=["family"],
)
def test_resized_at_full_rank_it_draws_the_same(model, tmp_path: Path, kind: str) -> None:
    path = random_adapter(model, tmp_path / "a.safetensors", CONFIGS[kind], 1)
    whole = merge_loras([(path, 1.0)], Target(tmp_path / "whole.safetensors"), Cut(), "fp32")
    norms = {"norm"} if CONFIGS[kind].train_norm else set()
    assert {module.algo for module in whole.factors.values()} == {"locon"} | norms and whole.unmatched == ()
    assert bool(whole.dora) == CONFIGS[kind].dora_wd
    wanted = changed(model, [(path, 1.0)])
    assert not close(answers(model), wanted, 0.05)
    assert close(changed(model, [(tmp_path / "whole.safetensors", 1.0)]), wanted)
    assert whole.metadata["ss_base_model_version"] == "sd_v1" and whole.metadata["ss_output_name"] == "whole"


def test_merged_it_equals_both_tags(model, tmp_path: Path) -> None:
    pair = [
        (random_adapter(model, tmp_path / f"{kind}.safetensors", CONFIGS[kind], seed), strength)
        for seed, (kind, strength) in enumerate([("locon", 0.8), ("loha", 0.6)])
    ]
    merge_loras(pair, Target(tmp_path / "both.safetensors"), Cut(), "fp32")
    assert close(changed(model, [(tmp_path / "both.safetensors", 1.0)]), changed(model, pair))


def test_merged_into_a_checkpoint_it_equals_the_tag(model, checkpoint: Path, tmp_path: Path) -> None:
    config = replace(CONFIGS["locon decomposed"], train_norm=True)
    path = random_adapter(model, tmp_path / "a.safetensors", config, 3)
    wanted, target = changed(model, [(path, 0.7)]), tmp_path / "merged.safetensors"
    layers = merge_into_checkpoint(checkpoint, [(path, 0.7)], Target(target))
    assert layers == len(read_adapter(path).factors)
    merged = model_of(open_pipeline(target, torch.float32), ExitStack())
    assert close(answers(merged), wanted, 1e-4)
    before, after = load_file(checkpoint), load_file(target)
    assert before.keys() == after.keys() and all(before[key].dtype == after[key].dtype for key in before)
    back = extract_lora(target, checkpoint, Target(tmp_path / "out.safetensors"), Cut(), "fp32")
    assert back.factors.keys() == read_adapter(path).factors.keys()
    norms = [name for name, module in back.factors.items() if module.algo == "norm"]
    assert norms and f"and {len(norms)} norms" in back.size
    assert close(changed(model, [(tmp_path / "out.safetensors", 1.0)]), wanted)
    with pytest.raises(UserError, match="hold the same weights"):
        extract_lora(checkpoint, checkpoint, Target(tmp_path / "none.safetensors"), Cut(), "fp32")


def test_the_best_approximation_is_kept() -> None:
    u, _ = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(0)))
    v, _ = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(1)))
    values = torch.tensor([4.0, 3.0, 2.0, 1.0, 1e-9, 0.0])
    change = u[:, :6] * values @ v
    # Of Σσ² = 30 the first holds 16, the first two 25.
    for cut, rank in ((Cut(), 4), (Cut(rank=3), 3), (Cut(energy=0.5), 1), (Cut(energy=0.6), 2), (Cut(2, 0.9), 2)):
        up, down = split(change, cut)
        assert up.shape == (8, rank) and down.shape == (rank, 6)
        torch.testing.assert_close(up @ down, u[:, :rank] * values[:rank] @ v[:rank], rtol=1e-4, atol=1e-4)


def a_file(path: Path) -> Path:
    up, down = torch.randn(6, 4), torch.randn(4, 5)
    save_adapter(
        path,
        adapter_tensors(Adapter({"lora_unet_x": AdapterModule("locon", {"up": up, "down": down}, 4.0)}), "fp32"),
        {},
    )
    return path


def test_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, small, both = (tmp_path / f"{name}.safetensors" for name in ("one", "small", "both"))
    a_file(one)
    assert main(["lora", "resize", str(one), str(small), "--rank", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["ranks"] == [2, 2]
    assert main(["lora", "merge", str(both), f"{one}:0.5", str(one), "--precision", "fp32"]) == 0
    layers = [read_adapter(path).factors["lora_unet_x"] for path in (one, both)]
    torch.testing.assert_close(layers[1].delta(), layers[0].delta() * 1.5, rtol=1e-4, atol=1e-4)
    for arguments, said in (
        (["resize", str(one), str(small)], "exists already"),
        (["resize", str(one), str(tmp_path / "x.safetensors"), "--energy", "2"], "an energy above 0"),
        (["merge", str(tmp_path / "x.safetensors"), f"{one}:much"], "'much' in"),
        (["merge", str(tmp_path / "x.ckpt"), str(one)], "does not end in .safetensors"),
    ):
        assert main(["lora", *arguments]) == 2
        assert said in capsys.readouterr().err


def test_a_dora_is_resized_and_merged_into_a_checkpoint_but_not_into_another_lora(tmp_path: Path) -> None:
    up, down, magnitude = torch.randn(6, 4), torch.randn(4, 5), torch.rand(1, 5) + 1
    layer = "lora_unet_mid_block_attentions_0_proj_in"
    dora = Adapter({layer: AdapterModule("locon", {"up": up, "down": down}, 4.0, magnitude)})
    save_adapter(tmp_path / "dora.safetensors", adapter_tensors(dora, "fp32"), {})
    loras = [(tmp_path / "dora.safetensors", 1.0)]
    resized = merge_loras(loras, Target(tmp_path / "same.safetensors"), Cut(), "fp32").factors[layer]
    weight = torch.randn(6, 5)
    torch.testing.assert_close(resized.change(weight), dora.layers[layer].change(weight), rtol=1e-4, atol=1e-4)
    for several in ([*loras, *loras], [(loras[0][0], 0.5)]):
        with pytest.raises(UserError, match="depends on the checkpoint"):
            merge_loras(several, Target(tmp_path / "both.safetensors"), Cut(), "fp32")


def test_layers_of_several_ranks_are_called_dynamic_as_kohya_does(tmp_path: Path) -> None:
    def merged(*ranks: int) -> str:
        layers = {
            f"lora_unet_{place}": AdapterModule("locon", {"up": torch.randn(8, r), "down": torch.randn(r, 8)}, float(r))
            for place, r in enumerate(ranks)
        }
        path, target = tmp_path / "from.safetensors", Target(tmp_path / "to.safetensors", replace=True)
        save_adapter(path, adapter_tensors(Adapter(layers), "fp32"), {})
        return merge_loras([(path, 1.0)], target, Cut(), "fp32").metadata["ss_network_dim"]

    assert (merged(3, 3), merged(2, 3)) == ("3", "Dynamic")
