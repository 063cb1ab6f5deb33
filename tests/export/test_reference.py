from pathlib import Path

import numpy as np
import pytest

from export.errors import UserError
from export.reference import NAME, Reference, read_reference, sample, write_reference

REFERENCE = Reference(
    inputs={"images": np.arange(12, dtype=np.uint8).reshape(1, 3, 2, 2)},
    outputs={"scores": np.linspace(0, 1, 5, dtype=np.float32), "labels": np.arange(5)},
    blocks={"backbone/stem": sample(np.arange(100_000.0))},
)


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    write_reference(tmp_path, REFERENCE)
    found = read_reference(tmp_path)
    for kind in ("inputs", "outputs", "blocks"):
        expected, got = getattr(REFERENCE, kind), getattr(found, kind)
        assert list(got) == list(expected)
        for name in expected:
            np.testing.assert_array_equal(got[name], expected[name])
            assert got[name].dtype == expected[name].dtype


def test_a_sample_is_spread_from_the_first_value_to_the_last() -> None:
    taken = sample(np.arange(100_000.0))
    assert (taken[0], taken[-1], len(taken)) == (0.0, 99_999.0, 2048)
    assert np.diff(taken).min() >= 48
    assert list(sample(np.arange(3.0))) == [0, 1, 2]


def test_a_file_that_is_missing_cut_off_or_of_something_else_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is missing: export again"):
        read_reference(tmp_path)
    write_reference(tmp_path, REFERENCE)
    whole = (tmp_path / NAME).read_bytes()
    (tmp_path / NAME).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="is damaged"):
        read_reference(tmp_path)
    np.savez(tmp_path / NAME, weights=np.zeros(3))
    with pytest.raises(UserError, match="holds 'weights', which is no reference"):
        read_reference(tmp_path)
