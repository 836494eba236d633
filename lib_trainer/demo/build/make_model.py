"""Makes the embedded model: `python -m lib_trainer.demo.build.make_model --work FOLDER`.

Two hours on one CPU core. Checkpoints and the intermediate results lie in FOLDER, and the same command
goes on from them; the finished weights go to `lib_trainer/demo/weights`.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import torch

from lib_trainer.demo.build.model import new_vae, settle_latents, store_model
from lib_trainer.demo.build.tokenizer import common_words, open_tokenizer, write_tokenizer
from lib_trainer.demo.build.train_unet import learn_unet
from lib_trainer.demo.build.train_vae import learn_vae, polish_decoder, refine_vae
from lib_trainer.demo.build.training_images import Lessons, draw_lesson, draw_lessons
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
    """Autoencoder, its latents of thousands of pictures, its decoder once more, words, text encoder and UNet."""
    torch.manual_seed(SEED)
    vae = new_vae()
    learn_vae(vae, work / "vae.pt", SEED)
    refine_vae(vae, work / "refined.pt", SEED)
    raw = draw_lessons(vae, work / "lessons.pt", SEED)
    polish_decoder(vae, raw.latents, lambda number: draw_lesson(SEED, number).picture, work / "decoder.pt", SEED)
    std, mean = torch.std_mean(raw.latents, dim=(0, 2, 3))
    settle_latents(vae, mean, std)
    settled = (raw.latents - mean[:, None, None]) / std[:, None, None]
    write_tokenizer(out / "tokenizer", common_words(raw.captions))
    torch.manual_seed(SEED)
    painter = learn_unet(Lessons(settled, raw.captions), open_tokenizer(out / "tokenizer"), work / "unet.pt", SEED)
    store_model(vae, painter.text_encoder, painter.unet, out)


if __name__ == "__main__":
    main()
