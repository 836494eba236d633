"""Pivotal tuning on the embedded model: the embedding alone, the adapter alone, and both."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import torch

from benchmarks.coexistence import FACE, train
from benchmarks.report import say, table
from lib_trainer.demo import datasets
from lib_trainer.demo.evaluate import denoising_loss, prepare_exam
from lib_trainer.demo.world import draw_random
from lib_trainer.host.standalone.host import StandaloneHost
from lib_trainer.host.standalone.merge_lora import bundled_words, merged_loras
from lib_trainer.models.placement import RESIDENT

_VECTORS: dict[str, Any] = {"num_vectors_per_token": 4, "init_word": "a person"}
WAYS: dict[str, dict[str, Any]] = {
    "the embedding alone": {**_VECTORS, "learning_rate": 0.0},
    "the adapter alone": {},
    "both": _VECTORS,
}
_OTHERS = 12


def measure_ways(seed: int, steps: int, rate: float) -> dict[str, list[float]]:
    """Way -> losses of held-out pictures of the face, and of pictures of other things; "" is the model alone."""
    with tempfile.TemporaryDirectory() as place:
        host = StandaloneHost(Path(place))
        data = FACE.draw(Path(place) / "face")
        shared = {"seed": seed, "save_precision": "fp32", "validate_every_n_steps": 0, "max_train_steps": steps}
        shared["embedding_lr"] = rate
        paths = {
            way: train(host, FACE.recipe(data), {**shared, **values, "output_name": f"face{number}"})
            for number, (way, values) in enumerate(WAYS.items())
        }
        others = [draw_random(Random(f"other {number}"), datasets.SIZE_PX) for number in range(_OTHERS)]
        with host.open_model() as model, torch.no_grad():
            layers = [*model.adaptable_layers(), *model.text_layers()]
            exams = [prepare_exam(model, drawings) for drawings in (FACE.heldout(), others)]
            model.prepare_training(RESIDENT, text_encoder=True)
            found = {}
            for way, files in {"": [], **{way: [(path, 1.0)] for way, path in paths.items()}}.items():
                words = bundled_words([path for path, _ in files])
                with merged_loras(layers, files), model.embeddings(words):
                    found[way] = [denoising_loss(model, exam, 1) for exam in exams]
    return found


def report_ways(seeds: Sequence[int], steps: int, rate: float) -> None:
    """Prints Markdown: a row a seed and way, as each seed ends."""
    say(f"\n{steps} steps, embedding learning rate {rate:g}\n")
    rows = []
    for seed in seeds:
        for way, losses in measure_ways(seed, steps, rate).items():
            rows.append([f"seed {seed}", way or "nothing", *(f"{loss:.4f}" for loss in losses)])
    say(table(["", "trained", "the face, held out", "other things"], rows))
