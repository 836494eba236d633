"""Diffusion transformers in the host: what is lent, whole runs, and the file in a prompt."""

from __future__ import annotations

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from lib_trainer import run as runs
from lib_trainer.adapter.attach import Adapter, attached, new_adapter
from lib_trainer.adapter.io import read_adapter
from lib_trainer.config.recipe import AdapterConfig, Recipe
from lib_trainer.errors import UserError
from lib_trainer.events import Event, Finished, Step, StopRequested
from lib_trainer.models.base import HostModel, SizeCond, TextCond
from lib_trainer.models.placement import RECOMPUTED, RESIDENT, Placement
from lib_trainer.training.objective import objective_of
from tests.fakes.forge_room import Prompts
from tests.fakes.room import WebuiRoom
from tests.host.helpers import differing, learned_adapter, parts_of, state_of, write_adapter

React = Callable[[Event], Exception | None]

SIDE = 8
CAPTIONS = ["a cat", "a long caption of a dog that runs (over) the hills, and far away"]
ADAPTERS = {
    "loha": AdapterConfig(algo="loha", network_dim=4, network_alpha=4.0),
    "lokr": AdapterConfig(algo="lokr", network_dim=4, network_alpha=4.0, factor=4),
}


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four pictures that are alike, so that there is something to learn."""
    folder = tmp_path_factory.mktemp("pictures") / "2_jeff_person"
    folder.mkdir()
    ramp = torch.linspace(40, 220, 64).expand(64, 64)
    for number in range(4):
        noise = torch.randn(64, 64, 3, generator=torch.Generator().manual_seed(number))
        picture = (torch.stack([ramp, ramp.T, 255 - ramp], dim=2) + 5 * noise).clamp(0, 255)
        Image.fromarray(picture.to(torch.uint8).numpy()).save(folder / f"{number}.png")
        (folder / f"{number}.txt").write_text(f"jeff_person, {CAPTIONS[number % 2]}")
    return folder.parent


def recipe(folder: Path, name: str, **changes: object) -> Recipe:
    values = {
        "train_data_dir": str(folder), "output_name": name, "resolution_px": "64,64", "min_bucket_reso": 64,
        "max_train_steps": 4, "optimizer": "AdamW", "learning_rate": 0.003, "network_dim": 4, "network_alpha": 4,
        "train_batch_size": 2, "save_precision": "fp32", "mixed_precision": "fp32", "seed": 5, "text_encoder_lr": 0,
        "lr_scheduler": "constant", "noise_offset": 0,
    }  # fmt: skip
    return Recipe().with_values({**values, **changes})


def drive(
    room: WebuiRoom,
    recipe: Recipe,
    folder: Path | None = None,
    react: Callable[[Event], Exception | None] | None = None,
) -> list[Event]:
    def work() -> list[Event]:
        events: list[Event] = []
        run = runs.run(room.host, recipe, folder)
        thrown = None
        while True:
            try:
                event = next(run) if thrown is None else run.throw(thrown)
            except StopIteration:
                return events
            events.append(event)
            thrown = react(event) if react else None

    return room.run(work)


def with_model(room: WebuiRoom, work: Callable[[HostModel], object], placement: Placement = RESIDENT) -> object:
    """What `work` makes of the open model, prepared for training."""

    def turn() -> object:
        with room.host.open_model() as model:
            texts = model.encode_text(CAPTIONS, 1)
            model.texts = texts
            model.prepare_training(placement, text_encoder=False)
            return work(model)

    return room.run(turn)


def noised(model: HostModel, batch: int = 2) -> tuple[Tensor, Tensor, Tensor, SizeCond]:
    """(x_t, target, timesteps, sizes) of a step, the same every time."""
    generator = torch.Generator().manual_seed(3)
    shape = (batch, model.family.shape.latent_channels, SIDE, SIDE)
    latents, noise = torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)
    t = torch.tensor([250.0, 850.0][:batch])
    objective = objective_of(model)
    parts = objective.add_noise(latents, noise, t), objective.target(latents, noise, t), t
    return *(part.to(model.device) for part in parts), SizeCond(torch.full((batch, 6), 64.0))


def gradients(model: HostModel, adapter: Adapter, text: TextCond) -> dict[str, Tensor]:
    x_t, wanted, t, sizes = noised(model)
    adapter.zero_grad(set_to_none=True)
    layers = model.adaptable_layers()
    with attached(adapter, layers, model.read_weight):
        (model.predict(x_t, t, text, sizes) - wanted).square().mean().backward()
    return {name: p.grad.clone() for name, p in adapter.named_parameters() if p.grad is not None}


def closest(found: Tensor, wanted: Tensor) -> float:
    return float((found.float() - wanted.float()).norm() / wanted.float().norm())


class Transformers:
    # Of a run that learns.
    steps = 40

    def test_latents_have_the_familys_channels_and_come_the_same_every_time(self, room: WebuiRoom) -> None:
        def work(model: HostModel) -> tuple[Tensor, Tensor]:
            pixels = torch.rand((2, 3, 64, 128), generator=torch.Generator().manual_seed(0)) * 2 - 1
            return model.encode_images(pixels), model.encode_images(pixels)

        def turn() -> object:
            with room.host.open_model() as model:
                return (*work(model), model.family)

        first, second, family = room.run(turn)
        side = family.latent_px
        assert first.shape == (2, family.shape.latent_channels, 64 // side, 128 // side)
        assert torch.equal(first, second) and first.dtype == torch.float32 and not first.is_inference()

    def test_captions_keep_their_own_length_and_are_plain_text(self, room: WebuiRoom) -> None:
        def turn() -> tuple[TextCond, TextCond]:
            with room.host.open_model() as model:
                return model.encode_text(CAPTIONS, 1), model.encode_text(CAPTIONS[1:], 1)

        both, alone = room.run(turn)
        assert len(both.lengths) == 2 and both.context.shape[1] == max(both.lengths)
        assert torch.allclose(both.context[1, : both.lengths[1]], alone.context[0], atol=1e-5)
        assert both.context.dtype == torch.float32 and not both.context.is_inference()
        found = self._drawn_text(room, CAPTIONS[1].replace("(", r"\(").replace(")", r"\)"))
        assert closest(alone.context[0], found) < 1e-5

    def _drawn_text(self, room: WebuiRoom, prompt: str) -> Tensor:
        """(L, D) what the host makes of a prompt."""

        def turn() -> Tensor:
            with torch.inference_mode():
                found = room.model.get_learned_conditioning(Prompts([prompt]))
            found = found["crossattn"] if isinstance(found, dict) else found
            return found[0].float().cpu().clone().reshape(-1, found[0].shape[-1])

        return room.run(turn)

    def test_the_prediction_is_what_the_host_draws_with(self, room: WebuiRoom) -> None:
        """Our prediction v, and the host's denoised x_0 = x_t − σ·v, of the same noisy latents."""

        def work(model: HostModel) -> tuple[Tensor, Tensor]:
            x_t, _, t, sizes = noised(model, batch=1)
            text = TextCond(model.texts.context[:1, : model.texts.lengths[0]], _row(model.texts.pooled))
            with torch.no_grad():
                ours = model.predict(x_t, t, text, sizes)
            return x_t, t / 1000, ours, text

        x_t, sigma, ours, text = with_model(room, work)

        theirs = room.run(lambda: self._host_denoised(room, x_t, sigma, text))
        assert closest(x_t - sigma.reshape(-1, 1, 1, 1) * ours, theirs) < 1e-4

    def _host_denoised(self, room: WebuiRoom, x_t: Tensor, sigma: Tensor, text: TextCond) -> Tensor:
        from backend import memory_management

        unet = room.model.forge_objects.unet
        extra = {} if text.pooled is None else {"y": text.pooled, "guidance": torch.ones(1)}
        # Latents of a video model have frames.
        shape = (*x_t.shape[:2], 1, *x_t.shape[2:]) if getattr(room.model, "is_wan", False) else x_t.shape
        with torch.inference_mode():
            memory_management.load_models_gpu([unet])
            found = unet.model.apply_model(
                x_t.reshape(shape), sigma, c_crossattn=text.context, transformer_options={}, **extra
            )
            return found.reshape(x_t.shape).clone()

    def test_text_of_unequal_length_does_not_change_the_rows(self, room: WebuiRoom) -> None:
        def work(model: HostModel) -> list[Tensor]:
            x_t, _, t, sizes = noised(model)
            text = model.texts
            with torch.no_grad():
                both = model.predict(x_t, t, text, sizes)
                alone = [
                    model.predict(
                        x_t[row : row + 1], t[row : row + 1],
                        TextCond(text.context[row : row + 1, :length], _row(text.pooled, row)),
                        SizeCond(sizes.pixels[:1]),
                    )
                    for row, length in enumerate(text.lengths)
                ]  # fmt: skip
            return both, torch.cat(alone)

        both, alone = with_model(room, work)
        assert closest(both, alone) < 1e-5

    @pytest.mark.parametrize("algo", list(ADAPTERS))
    def test_every_layer_gets_a_gradient_whatever_is_recomputed_or_offloaded(self, room: WebuiRoom, algo: str) -> None:
        def work(model: HostModel) -> dict[str, Tensor]:
            adapter = learned_adapter(model.adaptable_layers(), ADAPTERS[algo])
            return gradients(model, adapter, model.texts)

        plain = with_model(room, work)
        note(f"{algo}: {len({name.rsplit('.', 1)[0] for name in plain})} layers")
        assert plain and all(float(gradient.abs().max()) > 0 for gradient in plain.values())
        for placement in (RECOMPUTED, Placement(frozenset([0]), streamed=0.5)):
            again = with_model(room, work, placement)
            assert max(closest(again[name], plain[name]) for name in plain) < 1e-4

    def test_gradients_are_those_of_plain_autograd_through_the_hosts_code(self, room: WebuiRoom) -> None:
        """Of the base weights themselves: with ΔW = s·W at first order, ∂loss/∂s = ⟨∂loss/∂W, W⟩."""

        def work(model: HostModel) -> list[tuple[Tensor, Tensor]]:
            x_t, wanted, t, sizes = noised(model)
            layers = model.adaptable_layers()
            adapter = new_adapter(layers, AdapterConfig(algo="locon", network_dim=8), 1)
            factors = dict(adapter.layers.items())
            ours = {}
            with torch.no_grad():
                for module in factors.values():
                    module.up.copy_(torch.randn(module.up.shape, generator=torch.Generator().manual_seed(1)) * 0.02)
            for name, gradient in gradients(model, adapter, model.texts).items():
                ours[name] = gradient
            found = []
            with torch.enable_grad():
                for layer in layers:
                    weight, _ = model.read_weight(layer, x_t)
                    merged = (weight + factors[layer.name].delta().detach()).requires_grad_()
                    layer.module.forward = _plain_linear(merged, layer.module)
                    found.append((layer, merged))
                try:
                    (model.predict(x_t, t, model.texts, sizes) - wanted).square().mean().backward()
                finally:
                    for layer in layers:
                        del layer.module.forward
            pairs = []
            for layer, merged in found:
                module = factors[layer.name]
                scale = module.alpha / module.rank
                pairs.append((ours[f"layers.{layer.name}.up"], scale * merged.grad @ module.down.detach().T))
            return pairs

        pairs = with_model(room, work)
        worst = max(closest(a, b) for a, b in pairs)
        note(f"gradients: {len(pairs)} layers, {worst:.1e}")
        assert worst < 1e-4

    @pytest.mark.parametrize("algo", list(ADAPTERS))
    def test_a_saved_file_is_what_was_attached(self, room: WebuiRoom, algo: str) -> None:
        def path_of() -> Path:
            with room.host.open_model() as model:
                adapter = learned_adapter(model.adaptable_layers(), ADAPTERS[algo], share=0.1)
            path = write_adapter(room.host.lora_dir / f"parity_{algo}.safetensors", adapter)
            room.host.lora_changed(path)
            return path

        path = room.run(path_of)
        assert list(room.unknown_tensors(path)) == []
        clean = room.clean_picture()
        for strength in (1.0, -0.5):
            attached_answer, base = with_model(room, partial(self._answers, path=path, strength=strength))
            merged = room.run(partial(self._merged_answer, room, path, strength))
            error = closest(merged - base, attached_answer - base)
            note(f"parity {algo} at {strength}: {error:.1e}")
            assert error < 1e-3 and closest(merged, attached_answer) < 1e-4
        assert room.picture() == clean

    def _answers(self, model: HostModel, path: Path, strength: float) -> tuple[Tensor, Tensor]:
        x_t, _, t, sizes = noised(model, batch=1)
        text = TextCond(model.texts.context[:1, : model.texts.lengths[0]], _row(model.texts.pooled))
        self._asked = (x_t, t / 1000, text)
        adapter = Adapter(dict(read_adapter(path).factors))
        with torch.no_grad():
            base = model.predict(x_t, t, text, sizes)
            with attached(adapter, model.adaptable_layers(), model.read_weight, strength):
                return model.predict(x_t, t, text, sizes), base

    def _merged_answer(self, room: WebuiRoom, path: Path, strength: float) -> Tensor:
        """What the host answers with the file in a prompt."""
        x_t, sigma, text = self._asked
        room.host.generate(room.request(f"a photo <lora:{path.stem}:{strength:g}>"))
        return (x_t - self._host_denoised(room, x_t, sigma, text)) / sigma.reshape(-1, 1, 1, 1)

    @pytest.mark.parametrize("algo", list(ADAPTERS))
    def test_a_run_learns_and_gives_everything_back(self, room: WebuiRoom, pictures: Path, algo: str) -> None:
        clean, state = room.clean_picture(), _state(room)
        events = drive(room, recipe(pictures, f"learned_{algo}", algo=algo, max_train_steps=self.steps))
        assert isinstance(events[-1], Finished)
        assert len([event for event in events if isinstance(event, Step)]) == self.steps
        changed = differing(state, _state(room))
        assert changed == [], changed[:3]
        assert room.picture() == clean and room.picture(f"a photo {events[-1].tag}") != clean
        before, after = room.run(lambda: self._held_out(room, events[-1].path))
        note(f"{algo}: held-out loss {before:.4f} -> {after:.4f}")
        assert after < before
        with safe_open(events[-1].path, "pt") as file:
            assert file.metadata()["ss_timestep_sampling"] == "shift"

    def _held_out(self, room: WebuiRoom, path: Path) -> tuple[float, float]:
        """The loss without and with the file, on noise that the run did not see."""
        with room.host.open_model() as model:
            ramp = torch.linspace(40, 220, 64).expand(64, 64)
            pixels = torch.stack([ramp, ramp.T, 255 - ramp])[None] / 127.5 - 1
            latents = model.encode_images(pixels).repeat(6, 1, 1, 1)
            text = model.encode_text(["jeff_person, a cat"], 1).repeated(6)
            model.prepare_training(RESIDENT, text_encoder=False)
            objective = objective_of(model)
            noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(77))
            t = torch.tensor([150.0, 300.0, 450.0, 600.0, 750.0, 900.0])
            x_t, wanted = objective.add_noise(latents, noise, t), objective.target(latents, noise, t)
            sizes, adapter = SizeCond(torch.zeros(6, 6)), Adapter(dict(read_adapter(path).factors))
            losses = []
            for strength in (0.0, 1.0):
                with torch.no_grad(), attached(adapter, model.adaptable_layers(), model.read_weight, strength):
                    losses.append(float((model.predict(x_t, t, text, sizes) - wanted).square().mean()))
        return losses[0], losses[1]

    def test_a_resumed_run_writes_the_same_file(self, room: WebuiRoom, pictures: Path, tmp_path: Path) -> None:
        whole = load_file(drive(room, recipe(pictures, "resumed"))[-1].path)

        def stop(event: Event) -> Exception | None:
            return StopRequested(save=True) if isinstance(event, Step) and event.number == 2 else None

        folder = tmp_path / "run"
        folder.mkdir()
        assert drive(room, recipe(pictures, "resumed"), folder, stop)[-1].stopped_early
        again = load_file(drive(room, recipe(pictures, "resumed"), folder)[-1].path)
        assert all(torch.equal(again[key], whole[key]) for key in whole)

    def test_text_encoders_are_left_alone_with_a_sentence(self, room: WebuiRoom, pictures: Path) -> None:
        with pytest.raises(UserError, match="are not trained here"):
            drive(room, recipe(pictures, "text", text_encoder_lr=0.001))


def _state(room: WebuiRoom) -> list[tuple[object, ...]]:
    """Neo makes the predictor's buffer anew for each picture, by the shift that a person has set."""
    return [facts for facts in state_of(parts_of(room)) if facts[0] != "predictor"]


def note(text: str) -> None:
    """A figure, for whoever runs the tests."""
    sys.stderr.write(f"{text}\n")


def _row(pooled: Tensor | None, row: int = 0) -> Tensor | None:
    return None if pooled is None else pooled[row : row + 1]


def _plain_linear(weight: Tensor, module: torch.nn.Module) -> Callable[[Tensor], Tensor]:
    bias = None if module.bias is None else module.bias.detach().to(weight)
    return lambda x: torch.nn.functional.linear(x, weight, bias)
