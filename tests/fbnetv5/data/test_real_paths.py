from pathlib import Path

from fbnetv5.data.real_paths import RealPaths


def test_links_to_folders_and_files_lead_to_the_same_path(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/0.png").touch()
    (tmp_path / "b").symlink_to("a")
    (tmp_path / "a/1.png").symlink_to("0.png")
    (tmp_path / "a/2.png").symlink_to("2.png")
    real = RealPaths()
    assert {real(str(tmp_path / name)) for name in ("a/0.png", "a/1.png", "b/0.png")} == {str(tmp_path / "a/0.png")}
    assert real(str(tmp_path / "b/2.png")) == str(tmp_path / "a/2.png")
