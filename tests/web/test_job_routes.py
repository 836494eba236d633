"""What the routes for runs answer."""

from __future__ import annotations

import json
from dataclasses import asdict
from importlib.util import find_spec

import pytest

from lib_trainer.web.router import PREFIX
from tests.jobs.runs import unfinished_run
from tests.waiting import PATIENCE_S, until


def test_a_run_is_started_watched_and_looked_back_at(program):
    one = program()
    recipe = {"output_name": "jeff", "train_data_dir": str(one.pictures)}
    run_id = one.post("/jobs", {"preset": "loha_face_config_8gb", "recipe": recipe}).json()["id"]
    one.jobs.wait(PATIENCE_S)
    status = one.get("/status").json()
    assert (status["id"], status["state"], status["step"], status["live"]) == (run_id, "done", 3, False)
    assert [step for step, _ in status["losses"]] == [1, 2, 3]
    past = one.get(f"/jobs/{run_id}").json()
    assert (past["state"], past["files"], past["recipe"]["algo"]) == ("done", ["jeff.safetensors"], "loha")
    assert len(past["losses"]) == 3
    rows = one.get(f"/jobs/{run_id}/losses.csv").text.splitlines()
    assert rows[0] == "step,epoch,loss,learning_rate,seconds" and rows[3].startswith("3,1,")


def test_a_second_run_waits_and_can_be_taken_out(program):
    one = program(steps=500)
    first, second = one.start("a").json()["id"], one.start("b").json()["id"]
    assert [waiting["id"] for waiting in one.get("/status").json()["queue"]] == [second]
    assert one.start("b").status_code == 409
    assert one.post(f"/jobs/{second}/stop").json()["state"] == "stopped"
    assert one.get("/status").json()["queue"] == []
    assert one.post(f"/jobs/{first}/stop", {"save": False}).status_code == 200
    assert one.jobs.wait(PATIENCE_S).state == "stopped"


def test_pause_resume_save_and_sample(program):
    one = program(steps=500)
    run_id = one.start().json()["id"]
    until(lambda: one.get("/status").json()["state"] == "training")
    assert one.post(f"/jobs/{run_id}/pause").json()["state"] == "paused"
    assert one.post(f"/jobs/{run_id}/sample").status_code == 200
    until(lambda: one.get("/status").json()["samples"])
    sample = one.get("/status").json()["samples"][0]
    picture = one.get(f"/jobs/{run_id}/samples/{sample['file']}")
    assert picture.headers["content-type"] == "image/png" and picture.content.startswith(b"\x89PNG")
    assert one.post(f"/jobs/{run_id}/resume").json()["state"] == "training"


def test_a_run_that_has_not_learned_is_trained_for_more_steps(program):
    one = program(run=unfinished_run)
    run_id = one.start().json()["id"]
    one.jobs.wait(PATIENCE_S)
    assert one.get("/status").json()["evaluated"]["more_steps"] == 5
    assert one.post(f"/jobs/{run_id}/resume").status_code == 409
    assert one.post(f"/jobs/{run_id}/resume", {"max_train_steps": 8}).status_code == 200
    assert one.jobs.wait(PATIENCE_S).state == "done" and one.jobs.status().step == 8
    assert one.get(f"/jobs/{run_id}").json()["evaluated"]["more_steps"] == 0


def test_what_can_be_mended_is_answered_with_a_sentence(program):
    one = program()
    wrong = one.post("/jobs", {"recipe": {"output_name": "a/b", "network_dim": 0, "train_data_dir": str(one.pictures)}})
    assert wrong.status_code == 422
    assert set(wrong.json()["detail"]["problems"]) == {"output_name", "network_dim"}
    assert "Choose one of" in one.post("/jobs", {"preset": "none"}).json()["detail"]["hint"]
    assert "no run" in one.get("/jobs/20200101-000000-abcdef").json()["detail"]["error"]


def test_a_run_is_removed_from_the_history_when_it_is_over(program):
    one = program(steps=500)
    run_id = one.start().json()["id"]
    assert one.client.delete(f"{PREFIX}/jobs/{run_id}").status_code == 409
    until(lambda: one.get("/status").json()["state"] == "training")
    one.jobs.stop(save=True)
    one.jobs.wait(PATIENCE_S)
    assert one.client.delete(f"{PREFIX}/jobs/{run_id}").status_code == 200
    assert one.get("/jobs").json() == []
    assert (one.host.lora_dir / "jeff.safetensors").exists()


def test_files_outside_the_allowed_folders_are_not_read(program, tmp_path):
    one = program()
    recipe = {"output_name": "jeff", "train_data_dir": str(one.pictures), "network_weights": "/etc/a.safetensors"}
    pairs = {
        "output_name": "jeff",
        "train_data_dir": str(one.pictures),
        "mode": "difference",
        "diff_target_dir": "/etc",
    }
    for named in (recipe, pairs):
        refused = one.post("/jobs", {"recipe": named})
        assert refused.status_code == 403 and "outside the folders" in refused.json()["detail"]["error"]


def test_no_path_of_this_machine_is_told(program, tmp_path):
    one = program()
    run_id = one.start().json()["id"]
    one.jobs.wait(PATIENCE_S)
    assert str(tmp_path) not in json.dumps([one.get(path).json() for path in ("/status", "/jobs", f"/jobs/{run_id}")])


def test_the_routes_are_documented(program):
    paths = program().app.openapi()["paths"]
    assert {f"{PREFIX}/status", f"{PREFIX}/jobs", f"{PREFIX}/jobs/{{run_id}}/stop"} <= set(paths)
    assert all(how.get("summary") for methods in paths.values() for how in methods.values())


@pytest.mark.skipif(not find_spec("gradio"), reason="needs gradio")
def test_a_page_of_our_own_has_the_routes_and_hands_out_its_key(tmp_path):
    from fastapi import FastAPI
    from fastapi.testclient import TestClient

    import lib_trainer.app as ui
    from tests.ui.fakes import FakeHost

    for cached in (ui.host_and_jobs, ui.page_access):
        cached.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        from lib_trainer.host.access import Access

        patch.setattr(ui, "current_host", lambda: FakeHost(tmp_path))
        patch.setattr(ui, "current_access", lambda: Access(api_users={"a": "b"}))
        app = FastAPI()
        ui.add_routes(app)
        key = ui.page_access().page_key
        client = TestClient(app, base_url="http://127.0.0.1")
        assert client.get(f"{PREFIX}/status").status_code == 401
        assert client.get(f"{PREFIX}/status", headers={"X-Train-Lora-Key": key}).status_code == 200
        assert client.post(f"{PREFIX}/jobs", json={}).status_code in (404, 405)
    for cached in (ui.host_and_jobs, ui.page_access):
        cached.cache_clear()


def test_a_page_that_outlived_the_program_is_told_that_nothing_runs(program):
    """After a crash and a restart, what the page has seen last is of a run that this program does not know."""
    one = program()
    for seen in ("", "20261129-164404-abcdef.812."):
        view = one.get("/view", params={"seen": seen}).json()
        assert view["state"] == "idle" and not view["live"] and "Train" in view["parts"]["head"]
    assert "parts" not in one.get("/view", params={"seen": view["version"]}).json(), "once is enough"


def test_a_run_that_a_crash_ended_is_pointed_at(program):
    one = program(steps=500)
    run_id = one.start("jeff").json()["id"]
    until(lambda: one.get("/status").json()["step"] > 1)
    record = one.jobs.history.find(run_id)
    one.jobs.stop(save=False)
    one.jobs.wait(PATIENCE_S)
    # As the record stood when the program died.
    (one.jobs.history.folder / run_id / "run.json").write_text(json.dumps(asdict(record)), encoding="utf-8")
    head = program().get("/view").json()["parts"]["head"]
    assert "<code>jeff</code> was interrupted" in head and 'data-fold="train_lora_history"' in head


def test_the_head_follows_the_checkpoint(program):
    one = program()
    first = one.get("/view").json()
    assert first["head"].startswith("Realistic.safetensors")
    one.host.describe = lambda: "Other.safetensors · SD 1.x · on the CPU"
    assert one.get("/view", params={"seen": first["version"]}).json()["head"].startswith("Other")


def test_only_pictures_that_a_run_has_drawn_are_sent(program):
    one = program()
    run_id = one.start().json()["id"]
    one.jobs.wait(PATIENCE_S)
    folder = one.jobs.history.folder / run_id / "samples"
    folder.mkdir(exist_ok=True)
    (folder / "portrait.png").write_bytes(b"of somebody")
    assert one.get(f"/jobs/{run_id}/samples/portrait.png").status_code == 404


def test_the_panel_of_a_page_follows_the_run(program):
    one = program()
    idle = one.get("/view").json()
    one.start()
    one.jobs.wait(PATIENCE_S)
    done = one.get("/view").json()
    assert (idle["state"], done["state"]) == ("idle", "done") and done["saved"] == "jeff"
    assert set(one.get("/view", params={"seen": done["version"]}).json()) == {"version", "head"}, "nothing is new"
