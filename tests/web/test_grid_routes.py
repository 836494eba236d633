"""Grids over HTTP: what can be tried, begun, watched, fetched and chosen, and who may."""

from __future__ import annotations

import threading
from io import BytesIO

import pytest
from PIL import Image

from lib_trainer.models.families import FLUX, SD1
from tests.waiting import until

GRID = {"lora": "jeff", "prompts": ["p", "q"], "strengths": "0:1:0.5", "width_px": 64, "height_px": 64}


@pytest.fixture
def tried(program):
    def start(**options):
        started = program(**options)
        started.host.put("jeff-000001", "jeff", "oil")
        return started

    return start


def whole(started) -> dict:
    """The grid once nothing is drawn any more."""
    until(lambda: not started.get("/grid").json()["live"])
    return started.get("/grid").json()


def test_a_grid_is_drawn_watched_and_fetched(tried):
    started = tried()
    assert started.get("/grid").json()["state"] == "idle"
    assert started.get("/grid/picture").status_code == 404
    answer = started.post("/grid", GRID)
    assert (answer.status_code, answer.json()["total"]) == (202, 6)
    grid = whole(started)
    assert (grid["state"], grid["rows"], grid["columns"][1]) == ("done", ["p", "q"], "jeff 0.5")
    assert grid["cells"][1]["loras"] == [{"name": "jeff", "strength": 0.5}]
    assert grid["cells"][1]["prompt"] == "p <lora:jeff:0.5>"
    assert grid["cells"][0]["change_percent"] is None
    assert "/" not in grid["file"]
    with Image.open(BytesIO(started.get("/grid/picture").content)) as picture:
        assert "Script: Train LoRA grid" in picture.text["parameters"]
    with Image.open(BytesIO(started.get("/grid/cells/1/2").content)) as picture:
        assert picture.text["parameters"].startswith("q <lora:jeff:1>")
    assert started.get("/grid/cells/9/9").status_code == 404


def test_pairs_and_saved_steps(tried):
    started = tried()
    started.post("/grid", {**GRID, "mode": "pair", "other": "oil", "other_strengths": "0,1", "prompts": ["p"]})
    assert len(whole(started)["cells"]) == 6
    started.post("/grid", {**GRID, "mode": "steps", "prompts": ["p"], "strengths": "1"})
    assert whole(started)["rows"] == ["epoch 1", "final"]


def test_the_size_is_the_checkpoints_own_unless_it_is_given(tried):
    started = tried()
    started.post("/grid", {"lora": "jeff", "prompts": ["p"], "strengths": "1"})
    whole(started)
    assert started.host.requests[0].width_px == 64


def test_a_stop_keeps_what_is_there(tried):
    started = tried()
    started.host.gate = threading.Semaphore(2)
    started.post("/grid", GRID)
    until(lambda: len(started.get("/grid").json()["cells"]) == 2)
    assert started.post("/grid", GRID).status_code == 409
    assert started.post("/grid/stop", {}).json()["stopping"]
    started.host.gate.release()
    grid = whole(started)
    assert (grid["state"], len(grid["cells"])) == ("stopped", 3)


def test_choosing_says_what_it_did(tried):
    started = tried()
    started.post("/grid", GRID)
    whole(started)
    assert "strength 0.5" in started.post("/grid/cells/0/1/choose", {}).json()["done"]
    assert (started.host.lora_dir / "jeff.png").exists()
    assert started.post("/grid/cells/0/0/choose", {}).status_code == 409
    assert started.post("/grid/cells/8/8/choose", {}).status_code == 404


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"lora": "jef"}, "Did you mean jeff"),
        ({"strengths": "strong"}, "not a strength"),
        ({"prompts": []}, "no prompt"),
        ({"prompts": ["p <lora:../../x:1>"]}, "no LoRA named ../../x"),
    ],
)
def test_what_cannot_be_drawn_is_said(tried, changes, said):
    answer = tried().post("/grid", {**GRID, **changes})
    assert answer.status_code == 409
    assert said in answer.json()["detail"]["error"] + answer.json()["detail"]["hint"]


def test_files_are_listed_with_what_speaks_against_them(tried):
    listed = tried().get("/loras").json()
    assert sorted(lora["name"] for lora in listed) == ["jeff", "jeff-000001", "oil"]
    assert "path" not in listed[0]


def test_without_api_grids_can_be_looked_at_alone(tried):
    started = tried(changes=False)
    assert started.get("/grid").status_code == 200
    assert started.post("/grid", GRID).status_code == 405
    assert started.post("/grid/stop", {}).status_code in (404, 405)


def test_strangers_and_other_sites_are_refused(tried):
    started = tried(api_users={"anna": "secret"})
    for path in ("/grid", "/loras", "/grid/picture", "/grid/cells/0/0"):
        assert started.get(path).status_code == 401
    assert started.post("/grid", GRID).status_code == 401
    assert started.post("/grid", GRID, auth=("anna", "secret")).status_code == 202
    whole_state = started.get("/grid", auth=("anna", "secret"), headers={"origin": "http://evil.example"})
    assert whole_state.status_code == 403
    for path in ("/grid", "/grid/stop", "/grid/cells/0/1/choose"):
        evil = {"origin": "http://evil.example"}
        assert started.post(path, GRID, auth=("anna", "secret"), headers=evil).status_code == 403


def test_cfg_is_the_familys_unless_it_is_given(tried):
    started = tried()
    for family, given, drawn in ((FLUX, {}, 1), (SD1, {}, 7), (FLUX, {"cfg_scale": 3.5}, 3.5)):
        started.host.drawing_family = lambda family=family: family
        started.post("/grid", {**GRID, "prompts": ["p"], "strengths": "1", **given})
        whole(started)
        assert started.host.requests[-1].cfg_scale == drawn


def test_nothing_is_drawn_or_chosen_while_the_checkpoint_is_trained_on(tried):
    started = tried(steps=500)
    started.post("/grid", GRID)
    whole(started)
    started.start("anna")
    for path, content in (("/grid", GRID), ("/grid/cells/0/1/choose", {})):
        answer = started.post(path, content)
        assert answer.status_code == 409 and "being trained on" in answer.json()["detail"]["error"]
    assert not (started.host.lora_dir / "jeff.png").exists()


def test_a_picture_of_another_grid_is_not_sent_or_chosen(tried):
    started = tried()
    for _ in range(2):
        started.post("/grid", GRID)
        grid = whole(started)
    assert grid["number"] == 2
    assert [started.get(f"/grid/cells/0/1?grid={number}").status_code for number in (0, 1, 2)] == [200, 404, 200]
    refused = started.post("/grid/cells/0/1/choose?grid=1", {})
    assert refused.status_code == 404 and "of grid 1" in refused.json()["detail"]["error"]
    assert not (started.host.lora_dir / "jeff.png").exists()
    assert started.post("/grid/cells/0/1/choose?grid=2", {}).status_code == 200
