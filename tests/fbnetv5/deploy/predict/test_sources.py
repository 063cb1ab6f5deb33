from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from export.errors import UserError
from fbnetv5.data.image_files import EXIF_ORIENTATION
from fbnetv5.deploy.predict.sources import Frame, open_source


def save(path: Path, size: tuple[int, int] = (8, 6)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, "red").save(path)
    return path


def names(source: str) -> list[str]:
    return [frame.name for frame in open_source(source)]


def test_a_folder_a_pattern_a_list_and_an_image_are_read(tmp_path: Path) -> None:
    save(tmp_path / "b" / "2.PNG"), save(tmp_path / "a.jpg"), save(tmp_path / "b" / "10.png")
    (tmp_path / "notes.md").touch()
    assert names(str(tmp_path)) == ["a.jpg", "b/10.png", "b/2.PNG"]
    assert names(f"{tmp_path}/b/*.png") == ["10.png"]
    assert names(f"{tmp_path}/**/*.*") == ["a.jpg", "b/10.png", "b/2.PNG"]
    (tmp_path / "list.txt").write_text("b/2.PNG\n\na.jpg\n", encoding="utf-8")
    assert names(str(tmp_path / "list.txt")) == ["b/2.PNG", "a.jpg"]
    assert names(str(tmp_path / "a.jpg")) == ["a.jpg"]


def test_images_are_upright_and_a_damaged_one_does_not_stop_the_others(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = 6
    Image.new("RGB", (8, 6)).save(tmp_path / "turned.jpg", exif=exif)
    (tmp_path / "damaged.jpg").write_bytes(b"no image")
    damaged, turned = open_source(str(tmp_path))
    assert damaged.image is None
    assert "cannot identify image file" in damaged.reason
    assert turned.image is not None
    assert turned.image.size == (6, 8)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nowhere", "nowhere does not exist: name an image, a folder"),
        ("empty", "empty has no images"),
        ("*.tiff", "no image matches"),
        ("list.txt", "names no image"),
        ("clip.mp4", "cannot read the video"),
        ("missing.mp4", "does not exist"),
        ("a**.png", "is not a pattern"),
    ],
)
def test_a_source_without_images_is_one_line(source: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "list.txt").write_text("\n")
    (tmp_path / "clip.mp4").write_bytes(b"no video")
    with pytest.raises(UserError, match=message):
        names(str(tmp_path / source))


def test_a_file_of_a_list_that_is_missing_is_reported(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("missing.png\n")
    (frame,) = open_source(str(tmp_path / "list.txt"))
    assert "cannot read" in frame.reason


def test_the_frames_of_a_video_come_in_order(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "clip.mp4"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 32, 16, "yuv420p"
        for level in (0, 120, 240):
            frame = av.VideoFrame.from_ndarray(np.full((16, 32, 3), level, dtype=np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    frames: list[Frame] = list(open_source(str(tmp_path / "clip.mp4")))
    assert [frame.name for frame in frames] == [f"clip-{number:06d}.jpg" for number in range(3)]
    levels = [np.asarray(frame.image).mean() for frame in frames]
    np.testing.assert_allclose(levels, [0, 120, 240], atol=4)
    assert frames[0].image is not None
    assert frames[0].image.size == (32, 16)


def test_the_files_of_a_list_may_lie_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path / "here" / "a.png"), save(tmp_path / "there" / "b.png")
    monkeypatch.chdir(tmp_path / "here")
    Path("list.txt").write_text(f"a.png\n../there/b.png\n{tmp_path}/here/a.png\n")
    assert names("list.txt") == ["here/a.png", "there/b.png", "here/a.png"]


def test_images_of_16_bits_are_left_out(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), 60000, dtype=np.uint16)).save(tmp_path / "deep.png")
    (frame,) = open_source(str(tmp_path))
    assert frame.image is None
    assert "has more than 8 bits a channel" in frame.reason
