from lib_trainer.utils.file_mark import file_mark


def test_files_differ_by_size_and_by_what_lies_at_their_ends_and_in_the_middle(tmp_path):
    path = tmp_path / "a.safetensors"
    data = bytearray(5 * 2**20)
    marks = set()
    for changed in (None, 10, len(data) // 2 + 10, len(data) - 10):
        content = bytearray(data)
        if changed is not None:
            content[changed] = 1
        path.write_bytes(content)
        marks.add(file_mark(path))
    path.write_bytes(data + b"0")
    assert len({*marks, file_mark(path)}) == 5


def test_equal_files_are_equal_whatever_they_are_called(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(b"short")
    assert file_mark(tmp_path / "a") == file_mark(tmp_path / "b") != ""
    assert file_mark(tmp_path / "gone") == ""
