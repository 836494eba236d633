"""Folders that a page lists: below those that it may name, and no others."""

from __future__ import annotations

import os

import pytest

from lib_trainer.errors import UserError
from lib_trainer.host.access import Access
from lib_trainer.web.browse import browse


@pytest.fixture
def home(tmp_path):
    for name in ("home/jeff/10_jeff", "home/<b>anna", "home/.hidden", "elsewhere/secret"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "home/a.png").touch()
    return tmp_path / "home"


def listed(found):
    return [item["name"] for item in found["folders"]]


def test_a_program_of_this_machine_lists_every_folder(home):
    found = browse(Access(), f'"{home}"')
    assert listed(found) == ["<b>anna", "jeff"] and found["above"] == str(home.parent)
    assert browse(Access(), found["folders"][1]["path"])["folders"][0]["path"] == str(home / "jeff/10_jeff")
    assert browse(Access(), "")["folders"], "somewhere to begin"


def test_a_program_that_others_reach_lists_its_allowed_folders_alone(home):
    access = Access(folders=(home,), local_only=False)
    (home / "out").symlink_to(home.parent / "elsewhere")
    assert [item["path"] for item in browse(access, "")["folders"]] == [str(home)]
    assert browse(access, str(home))["above"] == "", "the folder above is not theirs"
    assert browse(access, str(home / "jeff"))["above"] == str(home)
    for outside in (home.parent, home / "out", home / "../elsewhere", home / "jeff/../../elsewhere"):
        with pytest.raises(UserError, match="outside"):
            browse(access, str(outside))
    assert browse(Access(local_only=False), "")["folders"] == []


@pytest.mark.parametrize("wrong", ["/not/there", "a\0b", "~nobody-of-that-name/x"])
def test_what_cannot_be_listed_is_said(wrong):
    with pytest.raises(UserError):
        browse(Access(), wrong)


def test_a_name_that_is_no_text_is_listed_all_the_same(home):
    os.mkdir(os.fsencode(home) + b"/\xff")
    assert "?" in listed(browse(Access(), str(home)))
