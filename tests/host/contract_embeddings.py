"""Pivotal tuning: a word's trained vectors are read in training as the WebUI reads its embeddings when it draws."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from lib_trainer.adapter.attach import Adapter
from lib_trainer.adapter.embedding import TrainedEmbedding, spread
from lib_trainer.adapter.io import read_adapter
from lib_trainer.events import Finished
from lib_trainer.models.base import HostModel, TextCond
from lib_trainer.models.placement import RESIDENT
from tests.fakes.room import WebuiRoom
from tests.host.contract_loras import written
from tests.host.contract_runs import drive, recipe
from tests.host.helpers import learned_adapter, relative_error

WORD = "jeffword"
PROMPTS = [f"a photo of {WORD}, smiling", f"{WORD} and {WORD} in a room"]


def trained(model: HostModel, seed: int = 0, count: int = 3) -> TrainedEmbedding:
    """Vectors of the size that this model's tokens have."""
    generator = torch.Generator().manual_seed(seed)
    rows = spread(model.word_vectors("person"), count)
    moved = {key: row + row.std() * torch.randn(row.shape, generator=generator) for key, row in rows.items()}
    return TrainedEmbedding(WORD, moved)


def parts_of(text: TextCond) -> list[Tensor]:
    return [text.context.detach(), *([] if text.pooled is None else [text.pooled.detach()])]


class Embeddings:
    def test_trained_is_drawn_and_afterwards_the_word_is_a_word_again(self, room: WebuiRoom) -> None:
        adapter = Adapter({})

        def encode() -> list[TextCond]:
            with room.host.open_model() as model:
                adapter.layers.update(learned_adapter(model.adaptable_layers()[:1]).layers)
                adapter.embedding = trained(model)
                plain = model.encode_text(PROMPTS, 1)
                with model.embeddings({WORD: adapter.embedding.vectors}):
                    known = model.encode_text(PROMPTS, 1)
                return [plain, known, model.encode_text(PROMPTS, 1)]

        plain, known, after = room.run(encode)
        path = written(room, "pivotal", adapter)

        def hosts() -> list[Tensor]:
            room.host.generate(room.request(f"{PROMPTS[0]} <lora:pivotal:1:0>"))
            context, pooled = room.hosts_text(PROMPTS)
            return [context, *([] if pooled is None else [pooled])]

        try:
            drawn = room.run(hosts)
            assert read_adapter(path).unmatched == ()
            for before, ours, theirs, again in zip(
                parts_of(plain), parts_of(known), drawn, parts_of(after), strict=True
            ):
                assert relative_error(before, ours) > 1e-2, "the embedding changes nothing"
                # The LoRA that brings it has no text encoder.
                assert relative_error(ours, theirs) < 1e-4
                assert torch.equal(before, again)
        finally:
            forget(room, path)
        assert room.caption_traces()[0] == {}

    def test_its_gradient_is_the_slope_of_what_the_encoders_say(self, room: WebuiRoom) -> None:
        def work() -> tuple[float, float, bool]:
            with room.host.open_model() as model:
                embedding = trained(model)
                shapes = [part.shape for part in parts_of(model.encode_text(PROMPTS, 1))]
                model.prepare_training(RESIDENT, text_encoder=True)
                embedding.to(model.device)
                weights = [torch.randn(shape, generator=torch.Generator().manual_seed(2)) for shape in shapes]

                def said() -> Tensor:
                    text = model.encode_text(PROMPTS, 1, grad=True)
                    read = [text.context, *([] if text.pooled is None else [text.pooled])]
                    return sum((a.double() * b.to(a.device)).sum() for a, b in zip(read, weights, strict=True))

                with model.embeddings({WORD: embedding.vectors}):
                    said().backward()
                    # Along the gradient itself, where the slope is largest.
                    slope = sum(vectors.grad.square().sum() for vectors in embedding.parameters()).sqrt()
                    ends = [moved_along_the_gradient(embedding, sign * 1e-3 / slope, said) for sign in (1, -1)]
                frozen = all(part.grad is None for module in room.parts() for part in module.parameters())
                return float(slope), float((ends[0] - ends[1]) / 2e-3), frozen

        slope, measured, frozen = room.run(work)
        assert slope > 0 and frozen
        assert abs(measured / slope - 1) < (1e-2 if room.precision.text == torch.float32 else 0.2)


class EmbeddingRuns:
    def test_a_run_trains_it_and_the_webui_draws_it(self, room: WebuiRoom, pictures: Path) -> None:
        values = {"num_vectors_per_token": 2, "embedding_lr": 0.5, "max_train_steps": 2, "output_name": "pivot_run"}
        events = drive(room, recipe(pictures, "pivot_run", learning_rate=0.0, **values))
        path = next(event.path for event in events if isinstance(event, Finished))
        try:
            (word, vectors), *others = read_adapter(path).embeddings.items()
            assert word == "jeff_person" and not others
            card = json.loads(path.with_suffix(".json").read_text("utf-8"))
            assert "The word jeff_person is an embedding of 2 vectors" in card["notes"]
            assert card["activation text"] == word

            def work() -> tuple[list[Tensor], list[Tensor]]:
                with room.host.open_model() as model:
                    begun = spread(model.word_vectors(word), 2)
                    with model.embeddings({word: vectors}):
                        ours = parts_of(model.encode_text([f"a {word}"], 1))
                assert all(relative_error(begun[key], vectors[key]) > 1e-2 for key in begun)
                room.host.generate(room.request(f"a {word} <lora:pivot_run:1>"))
                return ours, [part for part in room.hosts_text([f"a {word}"]) if part is not None]

            ours, theirs = room.run(work)
            assert all(relative_error(one, other) < 1e-4 for one, other in zip(ours, theirs, strict=True))
        finally:
            forget(room, path)


@torch.no_grad()
def moved_along_the_gradient(embedding: TrainedEmbedding, share: Tensor, said: Callable[[], Tensor]) -> Tensor:
    """What is said with the vectors moved by `share` of their gradients; they are moved back."""
    for vectors in embedding.parameters():
        vectors.add_(share * vectors.grad)
    answer = said()
    for vectors in embedding.parameters():
        vectors.sub_(share * vectors.grad)
    return answer


def forget(room: WebuiRoom, path: Path) -> None:
    """Takes the file and its embeddings out of the WebUI again: other tests draw the same words."""
    from lib_trainer.host.webui import paths

    def work() -> None:
        room.host.generate(room.request())
        for word in read_adapter(path).embeddings:
            (paths.embeddings_dir() / f"{word}.safetensors").unlink(missing_ok=True)
        loaded = room.host._resident()
        if not room.host.reads_bundled_embeddings:
            room.host._reload_embeddings(loaded)

    room.run(work)
    path.unlink()
