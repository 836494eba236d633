import pytest
import torch

from lib_trainer.demo.build import train_unet as unet_module
from lib_trainer.demo.build import train_vae as vae_module
from lib_trainer.demo.build.model import new_vae
from lib_trainer.demo.build.tokenizer import open_tokenizer, write_tokenizer
from lib_trainer.demo.build.train_unet import read_captions, train_unet
from lib_trainer.demo.build.train_vae import polish_decoder, rate_at, refine_vae, train_vae
from lib_trainer.demo.build.training_images import TrainingImages, draw_training_image, draw_training_images


@pytest.fixture
def tokenizer(tmp_path):
    write_tokenizer(tmp_path / "tokenizer", ["a", "cat"])
    return open_tokenizer(tmp_path / "tokenizer")


def test_an_interrupted_training_ends_where_an_uninterrupted_one_does(tmp_path, tokenizer, monkeypatch):
    monkeypatch.setattr(unet_module, "BATCH", 2)
    images = TrainingImages(torch.randn(40, 4, 8, 8, generator=torch.Generator().manual_seed(1)), ["a cat"] * 40)

    def train(name, *stops):
        torch.manual_seed(0)
        for steps in stops:
            painter = train_unet(images, tokenizer, tmp_path / name, seed=1, steps=steps)
        return painter.state_dict()

    whole, resumed = train("whole.pt", 2), train("halves.pt", 1, 2)
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


def test_the_autoencoder_learns_and_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(vae_module, "BATCH", 1)
    torch.manual_seed(0)
    vae = new_vae()
    before = vae.encoder.conv_in.weight.clone()
    train_vae(vae, tmp_path / "vae.pt", seed=1, steps=1)
    assert not torch.equal(before, vae.encoder.conv_in.weight)
    train_vae(vae, tmp_path / "vae.pt", seed=1, steps=2)
    assert torch.load(tmp_path / "vae.pt", weights_only=True)["step"] == 2
    learned = vae.encoder.conv_in.weight.clone()
    refine_vae(vae, tmp_path / "refined.pt", seed=1, steps=1)
    assert not torch.equal(learned, vae.encoder.conv_in.weight)


def test_polishing_changes_the_decoder_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(vae_module, "BATCH", 1)
    torch.manual_seed(0)
    vae = new_vae()
    before = {name: value.clone() for name, value in vae.state_dict().items()}
    polish_decoder(vae, torch.randn(3, 4, 8, 8), lambda i: draw_training_image(1, i).picture, tmp_path / "p.pt", 1, 1)
    changed = {name.split(".")[0] for name, value in vae.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"decoder", "post_quant_conv"}


def test_images_are_drawn_once(tmp_path):
    torch.manual_seed(0)
    first = draw_training_images(new_vae(), tmp_path / "images.pt", seed=1, count=50)
    again = draw_training_images(new_vae(), tmp_path / "images.pt", seed=1, count=50)
    assert first.latents.shape == (50, 4, 8, 8) and len(first.captions) == 50
    assert torch.equal(first.latents, again.latents)


def test_captions_become_77_tokens(tokenizer):
    tokens = read_captions(tokenizer, ["a cat", ""])
    assert tokens.shape == (2, 77)
    assert tokens[1, 0] == tokenizer.bos_token_id and (tokens[1, 1:] == tokenizer.eos_token_id).all()


def test_the_rate_rises_then_falls():
    rates = [rate_at(step, 1000, 1.0) for step in (0, 99, 500, 999)]
    assert rates[0] < rates[1] and rates[1] == pytest.approx(1.0) and rates[2] < 0.7 and rates[3] < 0.02
