"""The embedded model learns: shorter runs than the demo's, the same figures, and readers that are not ours.

`python -m lib_trainer demo --recipe both --json` gives the figures of the demo's own runs.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from lib_trainer.cli.demo import measure_file
from lib_trainer.cli.host import open_host
from lib_trainer.cli.run_training import train
from lib_trainer.demo import evaluate
from lib_trainer.demo.evaluate import LearningFigures
from lib_trainer.demo.recipes import DEMO_RUNS
from lib_trainer.host.standalone.host import StandaloneHost
from lib_trainer.host.standalone.merge_lora import merged_loras
from lib_trainer.models.base import SizeCond

# Few steps. The face at a higher rate than the demo's, or it learns too little; the style at a lower one, with which it
# forgets less on the way.
SHORTER = {
    "face": {"max_train_steps": 24, "learning_rate": 4e-4},
    "style": {"max_train_steps": 24, "learning_rate": 2.5e-3},
}


@pytest.fixture(autouse=True)
def few_timesteps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "TIMESTEPS", (100, 500, 900))


@contextmanager
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    try:
        yield
    finally:
        torch.set_num_threads(before)


def trained(kind: str, out: Path) -> tuple[StandaloneHost, Path, LearningFigures]:
    """Host, adapter file and figures after a short run."""
    demo_run = DEMO_RUNS[kind]
    with one_thread():
        host = open_host(out)
        assert torch.get_num_threads() == 1
        recipe = demo_run.recipe(demo_run.draw(out / "data"))
        recipe = recipe.with_values({**SHORTER[kind], "latent_variants": 1, "validate_every_n_steps": 0})
        finished, _ = train(host, recipe)
        return host, finished.path, measure_file(host, finished.path, demo_run)


@contextmanager
def drawing_model(host: StandaloneHost, path: Path) -> Iterator[tuple[nn.Module, tuple, Tensor]]:
    """The UNet, something to say to it, and what it answers with the file at strength 1."""
    with host.open_model() as model, torch.no_grad():
        x_t = torch.randn((1, 4, 8, 8), generator=torch.Generator().manual_seed(0))
        given = (x_t, torch.tensor([500]), model.encode_text(["jeff_person, portrait photo"], 1))
        nothing = SizeCond(torch.zeros(1, 6))
        plain = model.predict(*given, nothing)
        with merged_loras(model.adaptable_layers(), [(path, 1.0)]):
            ours = model.predict(*given, nothing)
        assert (ours - plain).abs().max() > 0.05
        yield model.unet, (given[0], given[1], given[2].context), ours


def drawn_by_lycoris(unet: nn.Module, given: tuple, path: Path) -> Tensor:
    import lycoris

    network, _ = lycoris.create_lycoris_from_weights(1.0, str(path), unet)
    network.apply_to()
    drawn = unet(*given).sample
    network.restore()
    assert len(network.loras) == len({key.split(".")[0] for key in load_file(path)})
    return drawn


def drawn_by_peft(unet: nn.Module, given: tuple, path: Path, algo: str) -> Tensor:
    """PEFT knows both kinds under these very names; diffusers itself reads neither."""
    import peft

    modules = {f"lora_unet_{name.replace('.', '_')}": name for name, _ in unet.named_modules()}
    ranks, alphas, renamed = {}, {}, {}
    for key, value in load_file(path).items():
        layer, _, part = key.partition(".")
        if part == "alpha":
            alphas[modules[layer]] = float(value)
            continue
        renamed[f"base_model.model.{modules[layer]}.{part}"] = value.float()
        if part in ("hada_w1_b", "lokr_w2_b"):
            ranks[modules[layer]] = value.shape[0]
    shared = {"r": 64, "alpha": 64, "rank_pattern": ranks, "alpha_pattern": alphas, "target_modules": list(alphas)}
    if algo == "loha":
        config = peft.LoHaConfig(**shared, use_effective_conv2d=True)
    else:
        config = peft.LoKrConfig(**shared, decompose_factor=8)
    adapted = peft.get_peft_model(unet, config).eval()
    assert not peft.set_peft_model_state_dict(adapted, renamed).unexpected_keys
    drawn = adapted(*given).sample
    adapted.unload()
    return drawn


def require_the_same_from_other_readers(host: StandaloneHost, path: Path, algo: str, monkeypatch) -> None:
    from lycoris.wrapper import LycorisNetwork

    monkeypatch.setattr(LycorisNetwork, "LORA_PREFIX", "lora_unet")
    with drawing_model(host, path) as (unet, given, ours):
        torch.testing.assert_close(drawn_by_lycoris(unet, given, path), ours, atol=1e-5, rtol=1e-5)
        pytest.importorskip("peft")
        torch.testing.assert_close(drawn_by_peft(unet, given, path, algo), ours, atol=1e-5, rtol=1e-5)


def test_a_face_is_learned_and_the_rest_is_kept(tmp_path, monkeypatch):
    host, path, figures = trained("face", tmp_path)
    assert figures.gain > 0.15
    assert figures.grows_with_strength
    assert figures.prior_rise < 0.15
    require_the_same_from_other_readers(host, path, "loha", monkeypatch)


def test_a_style_is_learned_for_subjects_never_seen_in_it(tmp_path, monkeypatch):
    host, path, figures = trained("style", tmp_path)
    assert figures.gain > 0.3
    assert figures.grows_with_strength
    assert 1 - figures.unseen[1.0] / figures.unseen[0.0] > 0.3
    assert figures.prior_rise < 0.2
    require_the_same_from_other_readers(host, path, "lokr", monkeypatch)
