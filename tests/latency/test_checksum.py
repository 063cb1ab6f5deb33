import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from export.errors import UserError
from latency.checksum import check_fields, read_checksummed, write_checksummed

CONTENT = {"first": 1, "second": 0.1}


def written(folder: Path) -> Path:
    write_checksummed(folder / "pair.json", CONTENT, schema=3)
    return folder / "pair.json"


def read(path: Path) -> dict[str, Any]:
    schema, content = read_checksummed(path, what="pair", schema=(2, 3))
    assert schema == 3
    return content


def test_a_file_is_read_again_in_any_order_of_fields(tmp_path: Path) -> None:
    path = written(tmp_path)
    assert read(path) == CONTENT
    path.write_text(json.dumps(dict(reversed(json.loads(path.read_text()).items()))))
    assert read(path) == CONTENT


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"second": 0.2}, "pair .*pair.json was edited or damaged: checksums differ"),
        ({"sha256": None}, "is not a pair, or it is damaged: it has no checksum"),
        ({"third": 1}, "checksums differ"),
        ({"schema": 4}, "has schema 4; this version reads schema 2 and 3"),
    ],
)
def test_an_edited_file_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = written(tmp_path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(UserError, match=message):
        read(path)


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path)
    path.write_text(path.read_text()[:-10])
    with pytest.raises(UserError, match="not valid JSON"):
        read(path)
    path.write_text('{"schema": 3, "first": 1}')
    with pytest.raises(UserError, match="is not a pair, or it is damaged: it has no checksum"):
        read(path)


@dataclass
class Pair:
    first: int
    second: float


@pytest.mark.parametrize(
    ("content", "field"), [({"first": 1}, "second"), (CONTENT | {"third": 1}, "third"), ({}, "first")]
)
def test_missing_and_unknown_fields_are_refused(content: dict[str, Any], field: str) -> None:
    check_fields(CONTENT, Pair, "pair")
    with pytest.raises(UserError, match=f"pair has a missing or unknown field '{field}'"):
        check_fields(content, Pair, "pair")
