import tempfile
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from export.errors import UserError
from export.reference import NAME, Reference, read_reference, sample, write_reference

REFERENCE = Reference(
    inputs={"images": np.arange(12, dtype=np.uint8).reshape(1, 3, 2, 2)},
    outputs={"scores": np.linspace(0, 1, 5, dtype=np.float32), "labels": np.arange(5)},
    blocks={"backbone/stem": sample(np.arange(100_000.0))},
)


def test_a_reference_is_read_back(tmp_path: Path) -> None:
    write_reference(tmp_path, REFERENCE)
    reference = read_reference(tmp_path)
    for kind in ("inputs", "outputs", "blocks"):
        expected, actual = getattr(REFERENCE, kind), getattr(reference, kind)
        assert list(actual) == list(expected)
        for name in expected:
            np.testing.assert_array_equal(actual[name], expected[name])
            assert actual[name].dtype == expected[name].dtype


def test_a_sample_is_evenly_spaced_from_the_first_value_to_the_last() -> None:
    values = sample(np.arange(100_000.0))
    assert (values[0], values[-1], len(values)) == (0.0, 99_999.0, 2048)
    assert np.diff(values).min() >= 48
    assert list(sample(np.arange(3.0))) == [0, 1, 2]


@given(st.data())
def test_a_file_with_changed_bytes_is_read_or_refused(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        write_reference(Path(folder), REFERENCE)
        content = bytearray((Path(folder) / NAME).read_bytes())
        for place in data.draw(st.lists(st.integers(min_value=0, max_value=len(content) - 1), min_size=1, max_size=4)):
            content[place] = data.draw(st.integers(min_value=0, max_value=255))
        (Path(folder) / NAME).write_bytes(content)
        with suppress(UserError):
            read_reference(Path(folder))


def test_a_missing_truncated_or_other_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is missing: export again"):
        read_reference(tmp_path)
    write_reference(tmp_path, REFERENCE)
    content = (tmp_path / NAME).read_bytes()
    (tmp_path / NAME).write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="is damaged"):
        read_reference(tmp_path)
    with (tmp_path / NAME).open("wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(UserError, match="is damaged"):
        read_reference(tmp_path)
    np.savez(tmp_path / NAME, weights=np.zeros(3))
    with pytest.raises(UserError, match="contains 'weights', which is no reference"):
        read_reference(tmp_path)
