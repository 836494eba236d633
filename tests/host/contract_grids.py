"""Grids in the host: column 0 without the LoRA, every other cell what text-to-image gives for its infotext."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest
from PIL import Image

from lib_trainer.errors import UserError
from lib_trainer.host.base import GenerateRequest, Host
from lib_trainer.lora.lookup import find_lora
from lib_trainer.lora.tags import LoraRef
from lib_trainer.preview.drawing import Drawn, draw_cells
from lib_trainer.preview.grid_job import save_grid
from lib_trainer.preview.grid_spec import GridSpec, combined_grid, strength_grid
from lib_trainer.utils.png import INFOTEXT_KEY
from tests.host.helpers import LOHA, learned_adapter, write_adapter

STRENGTHS = (0, 0.25, 0.5, 0.75, 1)
PROMPTS = ("a photo", "a (red) house")


class GridRoom(Protocol):
    """A host for the contract. `txt2img` draws an infotext by the host's own means, past everything of ours."""

    host: Host

    def run(self, fn: Any) -> Any: ...

    def request(self, prompt: str = "", **changes: Any) -> GenerateRequest: ...

    def txt2img(self, infotext: str) -> bytes: ...


def parse_infotext(text: str) -> dict[str, str]:
    """Prompt, Negative prompt, Steps, Seed … of a picture, as "PNG Info" reads them."""
    lines = text.split("\n")
    found = dict(part.split(": ", 1) for part in lines.pop().split(", "))
    negative = next((line for line in lines if line.startswith("Negative prompt: ")), "")
    prompt = "\n".join(line for line in lines if line != negative)
    return {**found, "Prompt": prompt, "Negative prompt": negative.removeprefix("Negative prompt: ")}


def put(room: GridRoom, name: str, seed: int = 1, **metadata: str) -> Path:
    """A LoRA file with a large effect."""

    def work() -> Path:
        with room.host.open_model() as model:
            adapter = learned_adapter(model.adaptable_layers(), LOHA, seed, share=0.5)
        path = write_adapter(room.host.lora_dir / f"{name}.safetensors", adapter, **metadata)
        room.host.lora_changed(path)
        return path

    return room.run(work)


def drawn(room: GridRoom, plan: GridSpec) -> list[Drawn]:
    return room.run(lambda: list(draw_cells(room.host, plan)))


class Grids:
    @pytest.fixture(autouse=True)
    def no_files_left(self, room: GridRoom) -> Iterator[None]:
        yield
        for path in sorted(room.host.lora_dir.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        room.host.loras(refresh=True)

    def test_two_prompts_at_five_strengths(self, room: GridRoom) -> None:
        clean = [room.run(lambda p=prompt: room.host.generate(room.request(p)))[0] for prompt in PROMPTS]
        put(room, "jeff")
        base = room.request(negative_prompt="a cat", cfg_scale=2.0)
        plan = strength_grid(base, PROMPTS, [7], LoraRef("jeff"), STRENGTHS)
        cells = drawn(room, plan)
        assert len({item.picture.tobytes() for item in cells}) == 10
        for item in cells:
            assert room.txt2img(item.infotext) == item.picture.tobytes(), item.infotext
        plain = drawn(room, strength_grid(room.request(), PROMPTS, [7], LoraRef("jeff"), [0, 1]))
        assert [item.picture.tobytes() for item in plain if item.cell.column == 0] == [p.tobytes() for p in clean]
        changes = [item.change for item in cells if item.cell.row == 0]
        assert changes[0] is None and 0 < changes[1] < changes[4]

    def test_two_loras_three_by_three(self, room: GridRoom) -> None:
        put(room, "jeff", 1)
        put(room, "oil", 2)
        prompt = "portrait of jeff <lora:jeff:1> in <lora:oil:1> style"
        plan = combined_grid(
            room.request(), [prompt], [7], (LoraRef("jeff"), [0, 0.5, 1]), (LoraRef("oil"), [0, 0.4, 0.8])
        )
        cells = drawn(room, plan)
        assert len({item.picture.tobytes() for item in cells}) == 9
        assert cells[0].picture.tobytes() == self.plain(room, "portrait of jeff in style")
        for item in cells:
            assert room.txt2img(item.infotext) == item.picture.tobytes(), item.infotext

    def test_a_retrained_file_changes_the_cells(self, room: GridRoom) -> None:
        plan = strength_grid(room.request(), ["p"], [7], LoraRef("again"), [0, 1])
        put(room, "again", 1)
        first = drawn(room, plan)
        put(room, "again", 2)
        second = drawn(room, plan)
        assert first[0].picture.tobytes() == second[0].picture.tobytes()
        assert first[1].picture.tobytes() != second[1].picture.tobytes()

    @pytest.mark.parametrize(
        "name", ["v1.5.jeff", "my style", "jeff (old) [x]", "日本 é", "faces/jeff", "none", "a'b&c"]
    )
    def test_any_name_works_or_is_refused_with_a_reason(self, room: GridRoom, name: str) -> None:
        path = put(room, name, ss_output_name="another name")
        lora = next(item for item in room.host.loras() if item.path.samefile(path))
        assert not lora.problem
        cells = drawn(room, strength_grid(room.request(), ["p"], [7], LoraRef(lora.name), [0, 1]))
        assert cells[0].picture.tobytes() != cells[1].picture.tobytes()
        assert room.txt2img(cells[1].infotext) == cells[1].picture.tobytes()

    def test_two_files_of_one_output_name_are_told_apart(self, room: GridRoom) -> None:
        put(room, "one", 1, ss_output_name="same")
        put(room, "two", 2, ss_output_name="same")
        names = [lora.name for lora in room.host.loras() if not lora.problem]
        assert names == ["one", "two"]
        pictures = [
            drawn(room, strength_grid(room.request(), ["p"], [7], LoraRef(name), [1]))[0].picture.tobytes()
            for name in names
        ]
        assert pictures[0] != pictures[1]
        if not any("same" in (lora.name, *lora.aliases) for lora in room.host.loras()):
            with pytest.raises(UserError, match="same"):
                drawn(room, strength_grid(room.request(), ["p <lora:same:1>"], [7], LoraRef("one"), [1]))

    def test_of_two_files_of_one_name_the_hidden_one_is_named(self, room: GridRoom) -> None:
        put(room, "a/jeff", 1)
        put(room, "b/jeff", 2)
        loras = room.host.loras()
        usable, hidden = sorted(loras, key=lambda lora: bool(lora.problem))
        assert (usable.problem, bool(hidden.problem)) == ("", True)
        assert f"{usable.path.parent.name}/jeff" in hidden.problem.replace("\\", "/")
        assert find_lora("jeff", loras) == usable
        cells = drawn(room, strength_grid(room.request(), ["p"], [7], LoraRef("jeff"), [1]))
        put(room, "alone", 1 if usable.path.parent.name == "a" else 2)
        alone = drawn(room, strength_grid(room.request(), ["p"], [7], LoraRef("alone"), [1]))
        assert cells[0].picture.tobytes() == alone[0].picture.tobytes()

    def test_a_missing_name_is_said_before_anything_is_drawn(self, room: GridRoom) -> None:
        put(room, "known")
        with pytest.raises(UserError, match=r"no LoRA named knwon.*Did you mean known\?"):
            drawn(room, strength_grid(room.request(), ["p <lora:knwon:1>"], [7], LoraRef("known"), [0, 1]))

    def test_a_file_for_other_models_is_marked_and_refused(self, room: GridRoom) -> None:
        other = "sd_v1" if room.host.drawing_family().key == "sdxl" else "sdxl_base_v1-0"
        put(room, "foreign", ss_base_model_version=other)
        lora = room.host.loras()[0]
        assert lora.family is not room.host.drawing_family()
        with pytest.raises(UserError, match=f"made for {lora.family.label}"):
            drawn(room, strength_grid(room.request(), ["p"], [7], LoraRef("foreign"), [1]))

    def test_the_grid_is_kept_as_the_host_keeps_its_own(self, room: GridRoom) -> None:
        put(room, "jeff")
        plan = strength_grid(room.request(), ["p"], [7], LoraRef("jeff"), [0, 1])
        cells = drawn(room, plan)
        paths = [room.run(lambda: save_grid(room.host, plan, cells)) for _ in range(2)]
        assert paths[0] != paths[1]
        assert {path.suffix for path in paths} == {".png"}
        with Image.open(paths[0]) as picture:
            text = picture.text[INFOTEXT_KEY]
            assert picture.width > 2 * 64
        assert text.startswith(cells[0].infotext)
        assert "Script: Train LoRA grid" in text

    def test_an_unknown_sampler_is_named(self, room: GridRoom) -> None:
        for sampler in room.host.samplers()[:2]:
            assert room.run(lambda s=sampler: room.host.generate(room.request("p", sampler=s)))
        with pytest.raises(UserError, match="Guess"):
            room.run(lambda: room.host.generate(room.request("p", sampler="Guess")))

    def plain(self, room: GridRoom, prompt: str) -> bytes:
        return room.run(lambda: room.host.generate(room.request(prompt)))[0].tobytes()


class WebUIGrids(Grids):
    """What only a WebUI has: its own buttons, progress bar, settings and names."""

    def test_every_picture_is_of_the_checkpoint_of_the_first(self, room: Any) -> None:
        put(room, "jeff")
        plan = strength_grid(room.request(), ["p"], [7], LoraRef("jeff"), [0, 1])
        wanted = [item.picture.tobytes() for item in drawn(room, plan)]
        model = room.model

        def work() -> list[bytes]:
            pictures = []
            for item in draw_cells(room.host, plan):
                pictures.append(item.picture.tobytes())
                room.select_eight_bits()
                assert room.model == model, "the checkpoint is not loaded anew between cells"
            return pictures

        try:
            assert room.run(work) == wanted
        finally:
            room.select()

    @pytest.mark.parametrize("how", ["interrupt", "skip", "stop_generating"])
    def test_interrupt_keeps_whole_pictures_alone(self, room: Any, how: str, monkeypatch: Any) -> None:
        from modules import processing, shared

        put(room, "jeff")
        plan = strength_grid(room.request(steps=3), ["p"], [7], LoraRef("jeff"), [0, 0.5, 1])
        whole = [item.picture.tobytes() for item in drawn(room, plan)]
        real, calls = processing.process_images, []

        def pressed(job: Any) -> Any:
            calls.append(job)
            done = real(job)
            if len(calls) == 2:
                # As if the button had been pressed during the last step.
                setattr(
                    shared.state, {"interrupt": "interrupted", "skip": "skipped"}.get(how, "stopping_generation"), True
                )
            return done

        monkeypatch.setattr(processing, "process_images", pressed)
        kept = [item.picture.tobytes() for item in drawn(room, plan)]
        assert kept == {"interrupt": whole[:1], "skip": [whole[0], whole[2]], "stop_generating": whole[:2]}[how]

    def test_the_progress_bar_counts_the_pictures(self, room: Any) -> None:
        from modules import shared

        put(room, "jeff")
        plan = strength_grid(room.request(), ["p"], [7], LoraRef("jeff"), [0, 1])

        def work() -> list[tuple[int, int]]:
            return [(shared.state.job_no, shared.state.job_count) for _ in draw_cells(room.host, plan)]

        assert room.run(work) == [(1, 2), (2, 2)]

    @pytest.mark.parametrize("name", ["a#b", "a=b"])
    def test_a_name_that_a_prompt_cannot_hold_is_refused(self, room: Any, name: str) -> None:
        put(room, name)
        assert "its name" in room.host.loras()[0].problem
        with pytest.raises(UserError, match="its name"):
            drawn(room, strength_grid(room.request(), ["p"], [7], LoraRef(name), [1]))
        with pytest.raises(UserError, match="its name"):
            room.run(lambda: room.host.generate(room.request(f"p <lora:{name}:1>")))

    def test_a_name_that_cannot_be_written_is_called_by_its_alias(self, room: Any) -> None:
        put(room, "a#b", ss_output_name="ab")
        assert [(lora.name, lora.problem) for lora in room.host.loras()] == [("ab", "")]
        assert drawn(room, strength_grid(room.request(), ["p"], [7], LoraRef("ab"), [1]))

    def test_a_person_may_keep_no_grids(self, room: Any) -> None:
        from modules import shared

        put(room, "jeff")
        plan = strength_grid(room.request(), ["p"], [7], LoraRef("jeff"), [1])
        cells = drawn(room, plan)
        shared.opts.data["grid_save"] = False
        try:
            assert room.run(lambda: save_grid(room.host, plan, cells)) is None
        finally:
            shared.opts.data["grid_save"] = True

    def test_infotexts_are_known_even_if_files_get_none(self, room: Any) -> None:
        from modules import shared

        put(room, "jeff")
        shared.opts.data["enable_pnginfo"] = False
        try:
            cells = drawn(room, strength_grid(room.request(), ["p"], [7], LoraRef("jeff"), [1]))
        finally:
            shared.opts.data["enable_pnginfo"] = True
        assert parse_infotext(cells[0].infotext)["Prompt"] == "p <lora:jeff:1>"

    def test_a_button_is_handed_to_the_webuis_own_sending(self, room: Any) -> None:
        from modules import infotext_utils

        button, field = object(), object()
        assert room.host.bind_sending(button, field)
        binding = infotext_utils.registered_param_bindings.pop()
        assert (binding.paste_button, binding.source_text_component, binding.tabname) == (button, field, "txt2img")
