import errno
import json
from pathlib import Path

import pytest

from export.errors import UserError
from export.files import atomic_write, is_utf8, read_document, read_json, write_json


def fail_with_full_disk(descriptor: int) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_a_document_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.json"
    write_json(path, {"schema": 1, "name": "café"})
    assert read_json(path, what="test", schema=1) == {"schema": 1, "name": "café"}
    assert "café" in path.read_text(encoding="utf-8")


def test_a_full_disk_keeps_the_old_file_and_leaves_no_temporary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"schema": 1, "value": "old"})
    monkeypatch.setattr("os.fsync", fail_with_full_disk)
    with pytest.raises(UserError, match=r"cannot write .*a\.json: No space left on device"):
        write_json(path, {"schema": 1, "value": "new"})
    assert json.loads(path.read_text())["value"] == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_interrupted_write_leaves_nothing(tmp_path: Path) -> None:
    def interrupted() -> None:
        with atomic_write(tmp_path / "a.bin") as temporary:
            temporary.write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_a_file_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        write_json(tmp_path / "runs" / "a.json", {"schema": 1})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"schema": 1, "na', "damaged or half-written"),
        (b'{"schema": \xff}', "damaged or half-written"),
        (b'{"schema": ' + b"9" * 5000 + b"}", "damaged or half-written"),
        (b"[" * 100_000, "damaged or half-written"),
        (b"[1]", "contains list, not a JSON object"),
        (b'{"schema": 2}', "has schema 2; this version reads schema 1"),
        (b'{"schema": true}', "has schema True"),
    ],
    ids=["truncated", "not UTF-8", "long number", "deep", "a list", "newer", "a boolean"],
)
def test_an_unreadable_document_is_refused(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_json(path, what="test", schema=1)


def test_a_missing_document_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"test file .*none\.json does not exist"):
        read_json(tmp_path / "none.json", what="test", schema=1)


def test_a_file_that_a_library_wrote_with_private_mode_gets_the_usual_mode(tmp_path: Path) -> None:
    (tmp_path / "usual").touch()
    with atomic_write(tmp_path / "private") as temporary:
        temporary.touch(mode=0o600)
    assert (tmp_path / "private").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_a_byte_order_mark_is_no_damage(tmp_path: Path) -> None:
    for name, text in (("a.json", '{"a": 1}'), ("a.yaml", "a: 1")):
        (tmp_path / name).write_text(text, encoding="utf-8-sig")
        assert read_document(tmp_path / name, what="a") == {"a": 1}


def test_half_a_surrogate_pair_is_not_utf_8() -> None:
    assert [is_utf8(text) for text in ("", "é\N{GRINNING FACE}", "\udcff", "\ud83d")] == [True, True, False, False]
