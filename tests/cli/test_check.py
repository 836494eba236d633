"""`check`: the findings of a folder, for people and for programs."""

from __future__ import annotations

import os

import pytest

from lib_trainer.cli.main import main


def test_findings_are_printed_and_given_to_programs(pictures, capsys, last_json):
    assert main(["check", str(pictures), "--kind", "face"]) == 0
    text = capsys.readouterr().out
    assert "3 pictures, trigger word “jeff”" in text and "⚠ 3 without a caption" in text
    assert main(["check", str(pictures), "--kind", "face", "--json"]) == 0
    found = {item["kind"]: item for item in last_json()["findings"]}
    assert found["small"]["pictures"] == [str(pictures / "2_jeff" / f"{number}.png") for number in range(3)]
    assert found["count"]["severity"] == "warning"


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
def test_a_name_cannot_command_the_terminal(pictures, capsys):
    (pictures / "2_jeff/0.png").rename(pictures / "2_jeff/\x1b[2Ja.png")
    assert main(["check", str(pictures)]) == 0
    assert "\x1b" not in (text := capsys.readouterr().out) and "\N{REPLACEMENT CHARACTER}[2Ja.png" in text


def test_a_folder_that_is_not_there_is_a_mistake(tmp_path, capsys):
    assert main(["check", str(tmp_path / "nothing")]) == 2
    assert "does not exist" in capsys.readouterr().err


def test_several_folders_are_shown_with_what_an_epoch_draws(pictures, capsys, last_json):
    (pictures / "1_man").mkdir()
    (pictures / "2_jeff/0.png").rename(pictures / "1_man/0.png")
    assert main(["check", str(pictures)]) == 0
    assert "  2_jeff: 2 × 2 = 4 (80%) in an epoch" in capsys.readouterr().out
    main(["check", str(pictures), "--json"])
    assert [row["drawn"] for row in last_json()["folders"]] == [1, 4]
