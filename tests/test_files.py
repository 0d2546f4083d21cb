"""A file is there whole, or not at all."""

import json
import os
import threading

import pytest

from keras_epsched import files


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_when_it_is_whole(tmp_path):
    path = tmp_path / "table.parquet"
    path.write_bytes(b"old")
    with files.written_whole(path) as temporary:
        assert temporary.parent == path.parent, "one file system"
        assert temporary.suffix == ".parquet", "writers look at it"
        temporary.write_bytes(b"half")
        assert path.read_bytes() == b"old"
        temporary.write_bytes(b"whole")
    assert path.read_bytes() == b"whole"
    assert names(tmp_path) == ["table.parquet"]


@pytest.mark.parametrize("before", [b"old", None])
def test_an_error_leaves_what_was_there(tmp_path, before):
    path = tmp_path / "report.json"
    if before is not None:
        path.write_bytes(before)
    kept = names(tmp_path)
    with pytest.raises(RuntimeError, match="no space"):
        with files.written_whole(path) as temporary:
            temporary.write_bytes(b"half")
            raise RuntimeError("no space")
    assert names(tmp_path) == kept
    if before is not None:
        assert path.read_bytes() == before


def test_a_block_that_writes_nothing_leaves_what_was_there(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(FileNotFoundError):
        with files.written_whole(path):
            pass
    assert path.read_text() == "old" and names(tmp_path) == ["a.txt"]


def test_a_second_error_does_not_hide_the_first(tmp_path, monkeypatch):
    def fail(*arguments, **named):
        raise OSError("read-only")

    monkeypatch.setattr(os, "unlink", fail)
    with pytest.raises(RuntimeError, match="first"):
        with files.written_whole(tmp_path / "a") as temporary:
            temporary.write_bytes(b"")
            raise RuntimeError("first")


def test_the_content_is_on_the_disk_before_the_name(tmp_path, monkeypatch):
    path = tmp_path / "weights.h5"
    done = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(
        os, "fsync", lambda file: (done.append("content"), fsync(file))
    )
    monkeypatch.setattr(
        os, "replace", lambda *names: (done.append("name"), replace(*names))
    )
    files.write(path, b"1")
    assert done == ["content", "name"]


def test_folders_are_created(tmp_path):
    path = tmp_path / "runs" / "7" / "note.txt"
    files.write(path, "kept")
    assert path.read_text() == "kept"


def test_text_is_utf_8_and_bytes_stay(tmp_path):
    path = tmp_path / "Jäger.txt"
    files.write(path, "Ngnawé ε\r\n")
    assert path.read_bytes() == "Ngnawé ε\r\n".encode()
    files.write(str(path), b"\x00\xff\n")
    assert path.read_bytes() == b"\x00\xff\n"


def test_json_is_readable_by_people_and_programs(tmp_path):
    path = tmp_path / "config.json"
    value = {"epsilon": 4 / 255, "names": ["é", None], "seed": 0}
    files.write_json(path, value)
    text = path.read_text(encoding="utf-8")
    assert json.loads(text) == value
    assert text.startswith('{\n  "epsilon": ') and text.endswith("}\n")
    with pytest.raises(TypeError):
        files.write_json(path, object())
    assert path.read_text(encoding="utf-8") == text


def test_writers_at_once_do_not_mix(tmp_path):
    path = tmp_path / "shared.bin"
    contents = [bytes([number]) * 2**16 for number in range(8)]
    threads = [
        threading.Thread(target=files.write, args=(path, content))
        for content in contents
    ]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert path.read_bytes() in contents
    assert names(tmp_path) == ["shared.bin"]
