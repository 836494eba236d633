"""Unauthorised calls, other sites and other folders are refused, one test each."""

from __future__ import annotations

import pytest

from lib_trainer.web.router import PREFIX
from tests.waiting import PATIENCE_S

READ_PATHS = (
    "/status",
    "/jobs",
    "/presets",
    "/jobs/x",
    "/jobs/x/losses.csv",
    "/jobs/x/report",
    "/jobs/x/samples/y.png",
)
CHANGE_PATHS = ("/jobs", "/jobs/x/stop", "/jobs/x/pause", "/jobs/x/resume", "/jobs/x/save", "/jobs/x/sample")
EVIL = {"Origin": "http://evil.example", "Sec-Fetch-Site": "cross-site"}


def log_in(one) -> None:
    """As gradio keeps the session of its login."""
    one.app.tokens = {"secret": "ann"}
    one.app.auth = {"ann": "word"}
    one.client.cookies.set("access-token-abc", "secret")


def test_anybody_may_watch_and_start_where_no_name_is_asked_for(program):
    one = program()
    assert one.get("/status").status_code == 200
    assert one.start().status_code == 202


def test_every_route_is_tried_here(program):
    """A new route must join the lists above."""
    one = program()
    paths = {path.removeprefix(PREFIX): set(how) for path, how in one.app.openapi()["paths"].items()}
    known = {path.replace("/x", "/{run_id}").replace("/y.png", "/{file}") for path in (*READ_PATHS, *CHANGE_PATHS)}
    missing = {path for path in paths if path.startswith(("/jobs", "/status", "/presets"))} - known
    assert not missing


@pytest.mark.parametrize("path", CHANGE_PATHS)
def test_without_api_nothing_can_be_changed(program, path):
    assert program(changes=False).post(path).status_code in (404, 405)
    assert program(changes=False).client.delete(f"{PREFIX}/jobs/x").status_code in (404, 405)


@pytest.mark.parametrize("path", READ_PATHS)
def test_api_auth_covers_what_is_read(program, path):
    one = program(api_users={"bob": "pass"})
    assert one.get(path).status_code == 401
    assert one.get(path, auth=("bob", "wrong")).status_code == 401
    assert one.get(path, auth=("ann", "pass")).status_code == 401
    assert one.get(path, headers={"Authorization": "Basic !"}).status_code == 401
    assert one.get(path, auth=("bob", "pass")).status_code in (200, 404)


@pytest.mark.parametrize("path", CHANGE_PATHS)
def test_api_auth_covers_what_is_changed(program, path):
    one = program(api_users={"bob": "pass"})
    assert one.post(path, {}).status_code == 401
    assert one.post(path, {}, auth=("bob", "wrong")).status_code == 401
    assert one.post(path, {}, auth=("bob", "pass")).status_code in (404, 422)
    assert one.client.delete(f"{PREFIX}/jobs/x").status_code == 401


@pytest.mark.parametrize("path", READ_PATHS)
def test_the_login_of_the_page_covers_what_is_read(program, path):
    one = program(logins={"ann": "word"})
    assert one.get(path).status_code == 401
    assert one.get(path, auth=("ann", "word")).status_code in (200, 404)
    one.client.cookies.set("access-token-abc", "made up")
    assert one.get(path).status_code == 401
    log_in(one)
    assert one.get(path).status_code in (200, 404)


@pytest.mark.parametrize("path", CHANGE_PATHS)
def test_the_login_of_the_page_covers_what_is_changed(program, path):
    one = program(logins={"ann": "word"})
    assert one.post(path, {}).status_code == 401
    assert one.post(path, {}, auth=("ann", "word")).status_code in (404, 422)
    log_in(one)
    assert one.post(path, {}).status_code in (404, 422)


def test_a_login_that_gradio_alone_knows_of_counts(program):
    one = program()
    one.app.auth = {"ann": "word"}
    assert one.get("/status").status_code == 401
    assert one.post("/jobs", {}).status_code == 401


def test_with_both_a_login_alone_changes_nothing(program):
    one = program(api_users={"bob": "pass"}, logins={"ann": "word"})
    log_in(one)
    assert one.get("/status").status_code == 200
    assert one.start().status_code == 401
    assert one.start(auth=("bob", "pass")).status_code == 202


def test_the_key_of_the_page_reads_and_changes_nothing(program):
    one = program(api_users={"bob": "pass"})
    key = {"X-Train-Lora-Key": one.access.page_key}
    assert one.get("/status", headers=key).status_code == 200
    assert one.start(headers=key).status_code == 401
    wrong = one.get("/status", headers={"X-Train-Lora-Key": "guess"})
    assert wrong.status_code == 401
    assert "WWW-Authenticate" not in wrong.headers, "a browser would open a window of its own"
    assert "WWW-Authenticate" in one.get("/status").headers


@pytest.mark.parametrize("headers", [EVIL, {"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}])
@pytest.mark.parametrize("path", CHANGE_PATHS)
def test_a_page_of_another_site_changes_nothing(program, path, headers):
    assert program().post(path, {}, headers=headers).status_code == 403


@pytest.mark.parametrize("origin", ["null", "http://127.0.0.1:9999", "http://127.0.0.1.evil.example:7860"])
def test_an_origin_that_only_looks_like_ours_is_another_site(program, origin):
    assert program().start(headers={"Origin": origin}).status_code == 403


def test_a_page_of_another_site_reads_nothing(program):
    assert program().get("/status", headers=EVIL).status_code == 403


def test_a_form_of_another_site_cannot_pass_as_json(program):
    one = program()
    for kind in ("text/plain", "application/x-www-form-urlencoded", "multipart/form-data"):
        sent = one.client.post(f"{PREFIX}/jobs", content=b"{}", headers={"Content-Type": kind})
        assert sent.status_code == 415


def test_a_foreign_name_for_this_machine_changes_nothing(program):
    """DNS rebinding: the other site's own name leads here, and its page looks like ours."""
    rebound = {"Host": "evil.example:7860", "Origin": "http://evil.example:7860", "Sec-Fetch-Site": "same-origin"}
    assert program().start(headers=rebound).status_code == 403
    assert program(local_only=False).start(headers=rebound).status_code == 202


def test_our_own_page_and_trusted_ones_may(program):
    one = program(origins=("http://friend.example",), origin_pattern=r"https://.*\.team\.example")
    for origin in ("http://127.0.0.1:7860", "http://friend.example", "https://a.team.example"):
        site = "same-origin" if "127" in origin else "cross-site"
        sent = one.post("/jobs/x/stop", {}, headers={"Origin": origin, "Sec-Fetch-Site": site})
        assert sent.status_code == 404, origin
    longer = {"Origin": "https://a.team.example.evil.example", "Sec-Fetch-Site": "cross-site"}
    assert one.post("/jobs/x/stop", {}, headers=longer).status_code == 403


@pytest.mark.parametrize("place", ["../", "..", "/", "/etc", "~", "pictures/../../..", "\x00", "//server/share"])
def test_pictures_outside_the_allowed_folders_are_refused(program, tmp_path, place):
    one = program(folders=(tmp_path / "pictures",))
    sent = one.start(folder=str(tmp_path / place) if place.startswith(("pictures", "..")) else place)
    assert sent.status_code == 403
    assert one.jobs.status().state == "idle"


def test_a_link_out_of_the_allowed_folders_is_refused(program, tmp_path):
    one = program(folders=(tmp_path / "pictures",))
    (tmp_path / "pictures" / "link").symlink_to("/etc")
    assert one.start(folder=str(tmp_path / "pictures" / "link")).status_code == 403


def test_no_folder_allowed_means_no_run_over_the_network(program):
    assert program(folders=()).start().status_code == 403


def test_regularisation_pictures_are_looked_for_in_allowed_folders_alone(program, tmp_path):
    one = program(folders=(tmp_path / "pictures",))
    recipe = {"output_name": "jeff", "train_data_dir": str(one.pictures), "reg_data_dir": "/etc"}
    assert one.post("/jobs", {"recipe": recipe}).status_code == 403


@pytest.mark.parametrize("name", ["../x", "..", "a/b", "a\\b", "/etc/x"])
def test_a_name_that_leads_elsewhere_is_refused(program, name):
    sent = program().start(name)
    assert sent.status_code == 422
    assert "output_name" in sent.json()["detail"]["problems"]


@pytest.mark.parametrize("ending", ["/../../secret", "..\\x", "../"])
def test_a_caption_ending_that_leads_elsewhere_is_refused(program, ending):
    one = program()
    recipe = {"output_name": "x", "train_data_dir": str(one.pictures), "caption_extension": ending}
    assert one.post("/jobs", {"recipe": recipe}).status_code == 422


@pytest.mark.parametrize("run_id", ["..", "%2e%2e", "..%2f..", "x%00", "....//"])
def test_an_id_that_leads_elsewhere_is_not_found(program, run_id):
    one = program()
    for path in (f"/jobs/{run_id}", f"/jobs/{run_id}/losses.csv", f"/jobs/{run_id}/samples/a.png"):
        assert one.get(path).status_code in (404, 405)
    assert one.post(f"/jobs/{run_id}/resume", {}).status_code in (404, 405)


@pytest.mark.parametrize("file", ["../run.json", "..%2frun.json", "run.json", "%2e%2e/run.json"])
def test_a_sample_that_leads_elsewhere_is_not_found(program, file):
    one = program()
    run_id = one.start().json()["id"]
    assert one.get(f"/jobs/{run_id}/samples/{file}").status_code == 404


@pytest.mark.parametrize("options", [{"api_users": {"bob": "pass"}}, {"logins": {"bob": "pass"}}])
@pytest.mark.parametrize("user", [("nobody", ""), ("", ""), ("bob", "")])
def test_an_unknown_name_gets_in_with_no_password(program, options, user):
    one = program(**options)
    assert one.get("/status", auth=user).status_code == 401
    assert one.post("/jobs/x/stop", {}, auth=user).status_code == 401


@pytest.mark.parametrize("path", READ_PATHS)
def test_a_foreign_name_for_this_machine_reads_nothing(program, path):
    """DNS rebinding: the foreign page has our origin then, and could read prompts and portraits."""
    rebound = {"Host": "evil.example:7860", "Sec-Fetch-Site": "same-origin"}
    one = program()
    assert one.get(path, headers=rebound).status_code == 403
    # It can open our page, and so knows its key.
    assert one.get(path, headers={**rebound, "X-Train-Lora-Key": one.access.page_key}).status_code == 403


def test_other_names_read_where_the_program_was_told_of_them(program):
    proxied = {"Host": "loras.example", "Sec-Fetch-Site": "same-origin"}
    assert program(local_only=False).get("/status", headers=proxied).status_code == 200
    assert program(origins=("https://loras.example",)).get("/status", headers=proxied).status_code == 200
    assert program(api_users={"bob": "pass"}).get("/status", headers=proxied, auth=("bob", "pass")).status_code == 200
    for name in ("localhost:7860", "127.0.0.1:1", "[::1]:7860"):
        assert program().get("/status", headers={"Host": name}).status_code == 200


def test_a_neighbour_on_the_same_site_is_another_site(program):
    one = program()
    neighbour = {"Sec-Fetch-Site": "same-site"}
    assert one.get("/status", headers=neighbour).status_code == 403
    assert one.post("/jobs/x/stop", {}, headers=neighbour).status_code == 403


def test_a_folder_is_not_inside_one_whose_name_begins_alike(program, tmp_path):
    for name in ("data", "data-evil"):
        (tmp_path / name).mkdir()
    one = program(folders=(tmp_path / "data",))
    assert one.start(folder=str(tmp_path / "data-evil")).status_code == 403
    assert one.access.folder(str(tmp_path / "data")) == tmp_path / "data"


def test_a_run_is_not_resumed_on_paths_that_are_no_longer_allowed(program, tmp_path):
    one = program(steps=300)
    recipe = {
        "output_name": "jeff",
        "train_data_dir": str(one.pictures),
        "base_weights": f"{tmp_path}/elsewhere/style.safetensors",
    }
    run_id = one.post("/jobs", {"recipe": recipe}).json()["id"]
    one.jobs.stop(save=False)
    one.jobs.wait(PATIENCE_S)
    assert program(folders=(tmp_path / "elsewhere",)).post(f"/jobs/{run_id}/resume", {}).status_code == 403
    assert program(folders=(one.pictures,)).post(f"/jobs/{run_id}/resume", {}).status_code == 403
    assert program().post(f"/jobs/{run_id}/resume", {}).status_code == 200


@pytest.mark.parametrize("recipe", [
    b'{"output_name": "\\ud800"}', b'{"\\ud800": 1}', b'{"train_data_dir": "/a\\ud800"}', b'{"seed": "\\ud800"}'
])  # fmt: skip
def test_a_letter_that_is_none_is_a_mistake_of_the_caller(program, recipe):
    one = program()
    headers = {"Content-Type": "application/json"}
    answer = one.client.post(f"{PREFIX}/jobs", content=b'{"recipe": ' + recipe + b"}", headers=headers)
    assert answer.status_code in (403, 409, 422), answer.text
    preset = one.client.post(f"{PREFIX}/jobs", content=b'{"preset": "\\ud800"}', headers=headers)
    assert preset.status_code in (404, 409, 422), preset.text
    grid = one.client.post(f"{PREFIX}/grid", content=b'{"lora": "\\ud800", "prompts": ["\\ud800"]}', headers=headers)
    assert grid.status_code in (409, 422), grid.text
