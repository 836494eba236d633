"""Makes the embedded model: `python -m lib_trainer.demo.make_model --work FOLDER`.

One and a half hours on one CPU core. Checkpoints and the intermediate results lie in FOLDER, and the same command
goes on from them; the finished weights go to `lib_trainer/demo/weights`.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

import torch

from lib_trainer.demo.learn_vae import learn_vae
from lib_trainer.demo.model import new_vae

SEED = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="folder for checkpoints")
    args = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    args.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    vae = new_vae()
    learn_vae(vae, args.work / "vae.pt", SEED)


if __name__ == "__main__":
    main()
