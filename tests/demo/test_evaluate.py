from contextlib import contextmanager

import pytest
import torch

from lib_trainer.demo.datasets import heldout_face, prior_drawings, unseen_style
from lib_trainer.demo.evaluate import STRENGTHS, TIMESTEPS, LearningFigures, measure
from lib_trainer.models.base import TextCond
from lib_trainer.models.families import SD1


class FakeModel:
    """Knows the true noise of every picture as far as `skill` goes: it sees latents and schedule."""

    family, prediction = SD1, "epsilon"
    device = torch.device("cpu")
    alphas_cumprod = torch.linspace(0.999, 0.01, 1000)

    def __init__(self):
        self.skill = {"jeff": 0.0, "": 0.5}
        self.prepared = False
        self.latents = {}

    def encode_images(self, pixels):
        assert not self.prepared, "the VAE may have left the device"
        latents = torch.nn.functional.avg_pool2d(pixels, 8)[:, [0, 1, 2, 0]]
        # Sets of pictures are told apart by their number.
        self.latents[len(pixels)] = latents
        return latents

    def encode_text(self, prompts, clip_skip, *, grad=False):
        self.concept = "jeff" if "jeff" in prompts[0] else ""
        return TextCond(torch.zeros(len(prompts), 77, 4))

    def prepare_training(self, placement, *, text_encoder):
        self.prepared = True

    def predict(self, x_t, t, text, sizes):
        assert sizes.pixels.shape == (len(x_t), 6)
        alpha = self.alphas_cumprod[t][:, None, None, None]
        latents = self.latents[len(x_t) // len(TIMESTEPS)].repeat(len(TIMESTEPS), 1, 1, 1)
        noise = (x_t - alpha.sqrt() * latents) / (1 - alpha).sqrt()
        return self.skill[self.concept] * noise

    @contextmanager
    def attach(self, strength):
        before, self.skill = self.skill, {"jeff": 0.9 * strength, "": 0.5 - 0.1 * strength}
        yield
        self.skill = before


@pytest.fixture(scope="module")
def figures():
    model = FakeModel()
    return measure(model, model.attach, heldout_face(), prior_drawings(5))


def test_the_concept_gets_better_with_strength(figures):
    assert tuple(figures.concept) == STRENGTHS
    assert figures.grows_with_strength
    assert figures.gain == pytest.approx(1 - 0.1**2, abs=1e-3)


def test_the_prior_is_measured_under_its_own_captions(figures):
    assert tuple(figures.prior) == (0.0, 0.8, 1.0)
    assert figures.prior_rise == pytest.approx((0.6 / 0.5) ** 2 - 1, abs=1e-3)


def test_noise_is_the_same_at_every_call():
    one, two = FakeModel(), FakeModel()
    assert measure(one, one.attach, heldout_face(), prior_drawings(5)) == measure(
        two, two.attach, heldout_face(), prior_drawings(5)
    )


def test_an_unseen_caption_is_measured_when_there_is_one(figures):
    assert figures.unseen == {}
    model = FakeModel()
    measured = measure(model, model.attach, heldout_face(), prior_drawings(5), unseen_style())
    assert tuple(measured.unseen) == STRENGTHS


def test_growth_is_denied_when_a_strength_does_worse():
    losses = dict(zip(STRENGTHS, (1.0, 0.9, 0.95, 0.8, 0.7, 0.6), strict=True))
    assert not LearningFigures(losses, {}, {}).grows_with_strength
