import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors import safe_open

from lib_trainer.demo.build.model import new_vae, normalize_latents
from lib_trainer.demo.world import COLOURS, to_pixels
from lib_trainer.host.standalone.host import WEIGHTS
from tests.demo.pictures import world_pictures

MAX_BYTES = 12_000_000


@pytest.fixture(scope="module")
def pipeline():
    made = StableDiffusionPipeline.from_pretrained(WEIGHTS)
    made.set_progress_bar_config(disable=True)
    return made.to(torch.float32)


def test_weights_are_small():
    assert 1_000_000 < sum(path.stat().st_size for path in WEIGHTS.rglob("*") if path.is_file()) <= MAX_BYTES


def test_every_release_of_transformers_finds_the_text_encoder_by_name():
    with safe_open(WEIGHTS / "text_encoder" / "model.safetensors", "pt") as file:
        assert all(name.startswith("text_model.") for name in file.keys())  # noqa: SIM118 - safe_open is no mapping


def test_it_draws_a_red_circle_on_a_blue_background(pipeline):
    request = {"num_inference_steps": 20, "guidance_scale": 5.0, "output_type": "np"}
    generators = [torch.Generator().manual_seed(seed) for seed in range(4)]
    prompts = ["a red circle on a blue background"] * 4
    pictures = pipeline(prompts, generator=generators, **request).images * 255
    good = 0
    for picture in pictures:
        corners = picture[[2, 2, -3, -3], [2, -3, 2, -3]].mean(0)
        reds = _near(picture, "red").mean()
        blues = _near(picture, "blue").mean()
        good += _near(corners[None, None], "blue").all() and 0.08 < reds < 0.6 and blues > 0.3
    assert good >= 3


def test_other_sizes_can_be_drawn(pipeline):
    assert pipeline("a cat", num_inference_steps=1, width=128, height=64).images[0].size == (128, 64)


def test_stored_latents_have_unit_spread(pipeline):
    vae = pipeline.vae
    with torch.no_grad():
        latents = vae.encode(to_pixels(world_pictures(96))).latent_dist.sample() * vae.config.scaling_factor
    assert latents.std(dim=(0, 2, 3)).numpy() == pytest.approx(np.ones(4), abs=0.15)
    assert latents.mean(dim=(0, 2, 3)).abs().max() < 0.3


def test_pictures_survive_the_autoencoder(pipeline):
    pixels = to_pixels(world_pictures(16))
    with torch.no_grad():
        back = pipeline.vae.decode(pipeline.vae.encode(pixels).latent_dist.mode()).sample
    assert (back - pixels).abs().mean() < 0.12


def test_settling_changes_latents_but_no_picture():
    torch.manual_seed(0)
    vae, pixels = new_vae().eval(), to_pixels(world_pictures(4))
    with torch.no_grad():
        latents = vae.encode(pixels).latent_dist.mean
        before = vae.decode(latents).sample
        std, mean = torch.std_mean(latents, dim=(0, 2, 3))
        normalize_latents(vae, mean, std)
        posterior = vae.encode(pixels).latent_dist
        after = vae.decode(posterior.sample()).sample
    assert torch.allclose(before, after, atol=1e-3)
    assert torch.allclose(posterior.mean.std(dim=(0, 2, 3)) * vae.config.scaling_factor, torch.ones(4), atol=1e-3)


def _near(picture, colour):
    """Where a picture (H, W, 3) of 0…255 is closer to `colour` than to any other of the world."""
    distances = np.stack([np.linalg.norm(picture - np.array(rgb), axis=-1) for rgb in COLOURS.values()])
    return distances.argmin(0) == list(COLOURS).index(colour)
