import pytest

from fbnetv5.data.roboflow import source_name


@pytest.mark.parametrize(
    ("name", "source"),
    [
        (f"train/images/a.b_jpg.rf.{'0a' * 16}.jpg", "train/images/a.b_jpg.jpg"),
        (f"a.rf.{'Zz9x' * 5}.png", "a.png"),
        ("a.rf.old.jpg", "a.rf.old.jpg"),
        (f"a.rf.{'0' * 32}", f"a.rf.{'0' * 32}"),
        (f"a.rf.{'0' * 32}/b.jpg", f"a.rf.{'0' * 32}/b.jpg"),
        ("a.jpg", "a.jpg"),
    ],
)
def test_copies_share_a_name_and_others_keep_theirs(name: str, source: str) -> None:
    assert source_name(name) == source
