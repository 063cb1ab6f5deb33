"""Label files that are arrays instead of images: MATLAB's .mat and NumPy's .npy.

Left out: .mat files of version 7.3, which are HDF5 files.
"""

import struct
import zlib
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
from numpy.typing import NDArray

from export.errors import UserError

DAMAGES = (
    OSError, ValueError, TypeError, KeyError, IndexError, EOFError, AttributeError, NotImplementedError, MemoryError,
    OverflowError, SyntaxError, TokenError, struct.error, zlib.error,
)  # fmt: skip
"""What SciPy and NumPy raise on a damaged file."""


def read_mat(path: str | Path, variable: str) -> NDArray[Any]:
    """A variable of a .mat file.

    Raises:
        UserError: the file is missing, cannot be read or lacks the variable.
    """
    from scipy.io import loadmat
    from scipy.io.matlab import MatReadError

    if not Path(path).exists():
        raise UserError(f"cannot read {path}: there is no such file. Add it")
    try:
        variables = loadmat(path)
    except (*DAMAGES, MatReadError) as error:
        raise UserError(f"cannot read {path}: {_one_line(error)}. Replace the file or remove it") from None
    if variable not in variables:
        raise UserError(f"{path} has no variable {variable!r}. Replace the file or remove it")
    values: NDArray[Any] = variables[variable]
    return values


def read_npy(path: str | Path, dimensions: int) -> NDArray[Any]:
    """The array of numbers of a .npy file; one trailing axis of length 1 beyond ``dimensions`` is removed.

    Raises:
        UserError: the file cannot be read, or its array has another number of dimensions.
    """
    try:
        values: NDArray[Any] = np.load(path, allow_pickle=False)
        if values.ndim == dimensions + 1 and values.shape[-1] == 1:
            values = values[..., 0]
        if values.ndim != dimensions or values.dtype.kind not in "buif":
            raise ValueError(f"an array of {values.dtype} of shape {values.shape}, not numbers in {dimensions} axes")
    except DAMAGES as error:
        raise UserError(f"cannot read {path}: {_one_line(error)}. Replace the file or remove it") from None
    return values


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
