"""Grids in the host: column 0 without the LoRA, every other cell what text-to-image gives for its infotext."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from PIL import Image

from lib_trainer.errors import UserError
from lib_trainer.lora.lookup import find_lora
from lib_trainer.lora.tags import LoraRef
from lib_trainer.preview.grid_job import save_grid
from lib_trainer.preview.grid_spec import combined_grid, strength_grid
from tests.host.grid_checks import PROMPTS, STRENGTHS, GridRoom, drawn, infotext_of, put


class Grids:
    @pytest.fixture(autouse=True)
    def no_files_left(self, room: GridRoom) -> Iterator[None]:
        yield
        for path in sorted(room.host.lora_dir.rglob("*"), reverse=True):
            path.rmdir() if path.is_dir() else path.unlink()
        room.host.loras(refresh=True)

    def test_two_prompts_at_three_strengths(self, room: GridRoom) -> None:
        clean = [room.run(lambda p=prompt: room.host.generate(room.request(p)))[0] for prompt in PROMPTS]
        put(room, "jeff")
        base = room.request(negative_prompt="a cat", cfg_scale=2.0)
        plan = strength_grid(base, PROMPTS, [7], LoraRef("jeff"), STRENGTHS)
        cells = drawn(room, plan)
        assert len({item.picture.tobytes() for item in cells}) == 6
        for item in cells:
            assert room.txt2img(item.infotext) == item.picture.tobytes(), item.infotext
        plain = drawn(room, strength_grid(room.request(), PROMPTS, [7], LoraRef("jeff"), [0, 1]))
        assert [item.picture.tobytes() for item in plain if item.cell.column == 0] == [p.tobytes() for p in clean]
        changes = [item.change for item in cells if item.cell.row == 0]
        assert changes[0] is None and 0 < changes[1] < changes[2]

    def test_two_loras_two_by_two(self, room: GridRoom) -> None:
        put(room, "jeff", 1)
        put(room, "oil", 2)
        prompt = "portrait of jeff <lora:jeff:1> in <lora:oil:1> style"
        plan = combined_grid(room.request(), [prompt], [7], (LoraRef("jeff"), [0, 1]), (LoraRef("oil"), [0, 0.8]))
        cells = drawn(room, plan)
        assert len({item.picture.tobytes() for item in cells}) == 4
        assert cells[0].picture.tobytes() == self.plain(room, "portrait of jeff in style")
        assert cells[2].picture.tobytes() == self.plain(room, "portrait of jeff <lora:jeff:1> in style")
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
        assert {path.suffix for path in paths} == {room.grid_suffix}
        with Image.open(paths[0]) as picture:
            text = infotext_of(picture)
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
