from pathlib import Path

import pytest

from export.errors import UserError
from fbnetv5.data.cvat_file import Item, Parser

TEXT = """<?xml version="1.0" encoding="utf-8"?>
<annotations>
  <meta><task><labels>
    <label><name>a &amp; b</name><type>tag</type><attributes><attribute><name>x</name></attribute></attributes></label>
    <label><name>ünter</name></label>
  </labels></task></meta>
  <image name="0.png" width="8" height="8">
    <box label="a"
         xtl="1"><attribute name="x">1</attribute></box>
    <tag label="b"/>
  </image>
  <image name="1.png"/>
</annotations>"""


def write(folder: Path, text: str) -> Path:
    path = folder / "annotations.xml"
    path.write_text(text, encoding="utf-8")
    return path


def test_elements_are_read_with_their_lines(tmp_path: Path) -> None:
    path = write(tmp_path, TEXT)
    content = Parser(path).parse()
    assert content.labels == {"a & b": "tag", "ünter": ""}
    assert [image.attributes["name"] for image in content.images] == ["0.png", "1.png"]
    first, second = content.images[0].items
    assert (first.kind, first.label, first.where) == ("box", "a", f"{path}:8")
    assert (second.kind, second.label, second.where) == ("tag", "b", f"{path}:10")
    assert (first.number("xtl"), first.number("rotation", "0")) == (1, 0)


@pytest.mark.parametrize("value", ["", "x", "nan", "inf"])
def test_an_attribute_that_is_no_number_is_named(value: str) -> None:
    with pytest.raises(UserError, match="f:3: box has no number 'xtl'"):
        Item(kind="box", attributes={"xtl": value}, where="f:3").number("xtl")


def test_damage_and_videos_are_named_with_their_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"annotations\.xml:12 is not valid XML"):
        Parser(write(tmp_path, TEXT[:-20])).parse()
    with pytest.raises(UserError, match=r"annotations\.xml:2 is a track of a video"):
        Parser(write(tmp_path, '<annotations>\n<track id="0"/></annotations>')).parse()
    with pytest.raises(UserError, match="cannot read"):
        Parser(tmp_path).parse()
    for encoding in ("shift_jis", "none"):
        text = f'<?xml version="1.0" encoding="{encoding}"?><annotations/>'
        with pytest.raises(UserError, match=r"annotations\.xml is not valid XML"):
            Parser(write(tmp_path, text)).parse()
