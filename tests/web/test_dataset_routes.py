"""The workbench's routes: read with the page's key, and only folders that a page has opened."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.testclient import TestClient

from lib_trainer.config.dataset import DatasetConfig
from lib_trainer.dataset.scan import scan_folder
from lib_trainer.preview.grid_job import GridJob
from lib_trainer.ui.status_view import show_panel
from lib_trainer.web.router import PREFIX, make_router
from lib_trainer.workbench.folders import Workbench


def test_an_open_folder_is_read_under_the_programs_login(program):
    one = program(api_users={"bob": "pass"})
    workbench = Workbench(one.host)
    config = DatasetConfig(train_data_dir=str(one.pictures))
    key = workbench.open(scan_folder(config), config, "face")
    workbench.get(key).checking.wait()
    app = FastAPI()
    app.include_router(make_router(one.host, one.jobs, one.access, GridJob(one.host), show_panel, workbench))
    client = TestClient(app, base_url="http://127.0.0.1:7860")
    mine = {"X-Train-Lora-Key": one.access.page_key}

    def get(path, **how):
        return client.get(f"{PREFIX}/datasets/{path}", **how)

    assert get(f"{key}/pictures").status_code == 401, "the folder's key does not replace the login"
    assert get(f"{key}/pictures", headers=mine).json()["pictures"][0]["name"] == "0.jpg"
    picture = get(f"{key}/pictures/0?key={one.access.page_key}")
    assert picture.headers["content-type"] == "image/jpeg" and picture.content[:2] == b"\xff\xd8"
    # Somebody's portraits: no cache between the two may hold them.
    assert (
        picture.headers["cache-control"].startswith("private")
        and picture.headers["x-content-type-options"] == "nosniff"
    )
    assert get(f"{key}/findings", headers=mine).json()["ended"] is True
    assert get(f"{key}/tags", headers=mine).json() == []
    for path in ("guess/pictures", f"{key}/pictures/99", "..%2F..%2Fetc/pictures"):
        assert get(path, headers=mine).status_code == 404
    assert get(f"{key}/captioning", headers=mine).json()["running"] is False
    foreign = {**mine, "origin": "http://evil.example", "sec-fetch-site": "cross-site"}
    assert get(f"{key}/pictures", headers=foreign).status_code == 403
    assert str(one.folder) not in get(f"{key}/pictures", headers=mine).text
    above = f"{PREFIX}/folders?path={one.pictures.parent}"
    assert client.get(above).status_code == 401
    assert "pictures" in [item["name"] for item in client.get(above, headers=mine).json()["folders"]]
    assert client.get(f"{PREFIX}/folders?path=/not/there", headers=mine).status_code == 404
    assert client.get(above, headers=foreign).status_code == 403
