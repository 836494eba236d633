"""`check`: the findings of a folder, for people and for programs."""

from __future__ import annotations

from lib_trainer.cli.main import main


def test_findings_are_printed_and_given_to_programs(pictures, capsys, last_json):
    assert main(["check", str(pictures), "--kind", "face"]) == 0
    text = capsys.readouterr().out
    assert "3 pictures, trigger word “jeff”" in text and "⚠ 3 without a caption" in text
    assert main(["check", str(pictures), "--kind", "face", "--json"]) == 0
    found = {item["kind"]: item for item in last_json()["findings"]}
    assert found["small"]["pictures"] == [str(pictures / "2_jeff" / f"{number}.png") for number in range(3)]
    assert found["count"]["severity"] == "warning"


def test_a_folder_that_is_not_there_is_a_mistake(tmp_path, capsys):
    assert main(["check", str(tmp_path / "nothing")]) == 2
    assert "does not exist" in capsys.readouterr().err
