"""Makes the embedded model: `python -m lib_trainer.demo.build.make_model --work FOLDER`.

Two hours on one CPU core. FOLDER holds checkpoints and intermediate results, from which the same command resumes;
the finished weights go to `lib_trainer/demo/weights`.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import torch

from lib_trainer.demo.build.model import new_vae, normalize_latents, store_model
from lib_trainer.demo.build.tokenizer import common_words, open_tokenizer, write_tokenizer
from lib_trainer.demo.build.train_unet import train_unet
from lib_trainer.demo.build.train_vae import polish_decoder, refine_vae, train_vae
from lib_trainer.demo.build.training_images import TrainingImages, draw_training_image, draw_training_images
from lib_trainer.host.standalone.host import WEIGHTS

SEED = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder for checkpoints")
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="folder for the finished model")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    args.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    make_model(args.work, args.out)


def make_model(work: Path, out: Path) -> None:
    """Trains autoencoder, decoder, text encoder and UNet, in this order, and stores the model in `out`."""
    torch.manual_seed(SEED)
    vae = new_vae()
    train_vae(vae, work / "vae.pt", SEED)
    refine_vae(vae, work / "refined.pt", SEED)
    raw = draw_training_images(vae, work / "training_images.pt", SEED)
    polish_decoder(vae, raw.latents, lambda index: draw_training_image(SEED, index).picture, work / "decoder.pt", SEED)
    std, mean = torch.std_mean(raw.latents, dim=(0, 2, 3))
    normalize_latents(vae, mean, std)
    normalized = (raw.latents - mean[:, None, None]) / std[:, None, None]
    write_tokenizer(out / "tokenizer", common_words(raw.captions))
    torch.manual_seed(SEED)
    images = TrainingImages(normalized, raw.captions)
    painter = train_unet(images, open_tokenizer(out / "tokenizer"), work / "unet.pt", SEED)
    store_model(vae, painter.text_encoder, painter.unet, out)


if __name__ == "__main__":
    main()
