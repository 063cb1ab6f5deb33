import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from export.errors import UserError
from latency.parsing import count, mapping, number, read_sealed, record, text, write_sealed


@dataclass
class Pair:
    first: int
    second: float


CONTENT = {"first": 1, "second": 0.1}


def sealed(path: Path) -> Path:
    write_sealed(path / "pair.json", CONTENT, schema=3)
    return path / "pair.json"


def read(path: Path) -> dict[str, Any]:
    return read_sealed(path, Pair, what="pair", schema=3)


def test_what_is_sealed_is_read_again_in_any_order(tmp_path: Path) -> None:
    path = sealed(tmp_path)
    assert read(path) == CONTENT
    path.write_text(json.dumps(dict(reversed(json.loads(path.read_text()).items()))))
    assert read(path) == CONTENT


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"second": 0.2}, "pair .*pair.json was edited or damaged: checksums differ"),
        ({"sha256": None}, "checksums differ"),
        ({"third": 1}, "does not know 'third'"),
        ({"schema": 4}, "has schema 4; this version reads schema 3"),
    ],
)
def test_what_was_changed_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = sealed(tmp_path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(UserError, match=message):
        read(path)


def test_what_was_cut_short_is_refused(tmp_path: Path) -> None:
    path = sealed(tmp_path)
    path.write_text(path.read_text()[:-10])
    with pytest.raises(UserError, match="not valid JSON"):
        read(path)
    path.write_text('{"schema": 3, "first": 1}')
    with pytest.raises(UserError, match="lacks or does not know 'second'"):
        read(path)


@pytest.mark.parametrize("value", [0, -1, 1.0, True, "1", None])
def test_a_count_is_a_whole_number_of_at_least_one(value: object) -> None:
    with pytest.raises(UserError, match=r"'x' is .* whole number of at least 1"):
        count(value, "'x'")
    assert count(0, "'x'", least=0) == 0


@pytest.mark.parametrize("value", [-1, math.nan, math.inf, True, "1", None])
def test_a_number_is_finite_and_not_negative(value: object) -> None:
    with pytest.raises(UserError, match=r"'x' is .* non-negative finite number"):
        number(value, "'x'")


def test_a_number_may_have_to_be_positive_or_may_have_a_sign() -> None:
    with pytest.raises(UserError, match="positive finite"):
        number(0, "'x'", positive=True)
    assert number(-1, "'x'", signed=True) == -1.0


def test_objects_and_names_are_what_they_must_be() -> None:
    assert record({"second": 1, "first": 2}, "'x'", Pair) == {"second": 1, "first": 2}
    wrong: object
    for wrong in ({"first": 1}, [], None):
        with pytest.raises(UserError, match=r"not an object of \['first', 'second'\]"):
            record(wrong, "'x'", Pair)
    with pytest.raises(UserError, match="not an object"):
        mapping([], "'x'")
    with pytest.raises(UserError, match="not a name"):
        text("", "'x'")
