import errno
from pathlib import Path

import pytest

from export.errors import UserError
from fbnetv5.runs.folder import file_name, make_folder, point_latest


def fail(line: str) -> None:
    raise AssertionError(line)


def test_latest_names_the_newest_run(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        point_latest(tmp_path / name, fail)
    assert (tmp_path / "latest").readlink() == Path("two")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latest", "one", "two"]


def test_a_folder_called_latest_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "latest").mkdir()
    (tmp_path / "run").mkdir()
    with pytest.raises(UserError, match="is not a link; move it away"):
        point_latest(tmp_path / "run", fail)
    assert (tmp_path / "latest").is_dir()


def test_a_run_continues_without_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(link: Path, target: str) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    said: list[str] = []
    point_latest(tmp_path / "run", said.append)
    (line,) = said
    assert "latest cannot be pointed to this run (Operation not permitted)" in line
    assert f"add --run {tmp_path / 'run'} to export" in line


def test_a_folder_is_made_once(tmp_path: Path) -> None:
    make_folder(tmp_path / "a" / "b", flag="--name")
    with pytest.raises(UserError, match=r"b exists already; resume it with --resume .*b or choose another --name"):
        make_folder(tmp_path / "a" / "b", flag="--name")
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot make .*file/b: "):
        make_folder(tmp_path / "file" / "b", flag="--name")


def test_the_files_of_a_network_have_the_names_of_its_tasks_unless_it_is_branched(tmp_path: Path) -> None:
    assert (file_name(tmp_path, ["cls"]), file_name(tmp_path, ["cls", "det"])) == ("cls", "cls+det")
    (tmp_path / "branched.json").touch()
    assert (file_name(tmp_path, ["cls"]), file_name(tmp_path, ["cls", "det"])) == ("cls", "branched")


def test_a_name_that_is_not_utf_8_leaves_no_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"udcff' is not UTF-8: choose another --name"):
        make_folder(tmp_path / "\udcff", flag="--name")
    assert not list(tmp_path.iterdir())
