from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from scipy.io import savemat

from export.errors import UserError
from export.runners import Array
from fbnetv5.data.array_files import read_mat, read_npy

VALUES = np.arange(600, dtype=np.uint16).reshape(20, 30)


def test_arrays_are_those_that_were_written(tmp_path: Path) -> None:
    savemat(tmp_path / "a.mat", {"LabelMap": VALUES}, do_compression=True)
    np.save(tmp_path / "a.npy", VALUES[..., None])
    assert np.array_equal(read_mat(tmp_path / "a.mat", "LabelMap"), VALUES)
    assert np.array_equal(read_npy(tmp_path / "a.npy", 2), VALUES)
    assert read_npy(tmp_path / "a.npy", 3).shape == (20, 30, 1)


READ: dict[str, Callable[[Path], object]] = {
    ".mat": lambda path: read_mat(path, "LabelMap"),
    ".npy": lambda path: read_npy(path, 2),
}


def damaged(whole: bytes) -> Iterator[bytes]:
    """The file cut at 100 places, and with three other bytes at 150 places."""
    generator = np.random.default_rng(0)
    for cut in range(100):
        yield whole[: len(whole) * cut // 100]
    for _ in range(150):
        changed = bytearray(whole)
        for place in generator.integers(0, len(whole), 3):
            changed[place] = generator.integers(256)
        yield bytes(changed)


@pytest.mark.parametrize("suffix", READ)
def test_a_damaged_file_is_named_in_one_line(tmp_path: Path, suffix: str) -> None:
    path, messages = tmp_path / f"a{suffix}", []
    savemat(path, {"LabelMap": VALUES}, do_compression=True) if suffix == ".mat" else np.save(path, VALUES)
    for content in damaged(path.read_bytes()):
        path.write_bytes(content)
        try:
            READ[suffix](path)
        except UserError as error:
            messages.append(str(error))
    assert len(messages) >= 100
    assert all(str(path) in message and "\n" not in message for message in messages)


@pytest.mark.parametrize(
    ("values", "message"), [(VALUES[0], r"shape \(30,\)"), (np.array([["a"]]), "of <U1"), (VALUES[None], "2 axes")]
)
def test_other_arrays_are_refused(tmp_path: Path, values: Array, message: str) -> None:
    np.save(tmp_path / "a.npy", values)
    with pytest.raises(UserError, match=message):
        read_npy(tmp_path / "a.npy", 2)


def test_a_missing_variable_or_file_is_named(tmp_path: Path) -> None:
    savemat(tmp_path / "a.mat", {"other": VALUES})
    with pytest.raises(UserError, match=r"a\.mat has no variable 'LabelMap'"):
        read_mat(tmp_path / "a.mat", "LabelMap")
    with pytest.raises(UserError, match=r"cannot read .*b\.mat: there is no such file"):
        read_mat(tmp_path / "b.mat", "LabelMap")
    with pytest.raises(UserError, match=r"cannot read .*b\.npy: .*No such file"):
        read_npy(tmp_path / "b.npy", 2)
