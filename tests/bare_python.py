"""A Python without torch, as a machine that only measures or serves has it."""

import venv
from importlib.metadata import distribution
from pathlib import Path

from packaging.requirements import Requirement


def bare_python(folder: Path, *packages: str) -> str:
    """The interpreter of a new environment that has these packages of this one, what they need, and nothing else."""
    venv.create(folder, symlinks=True)
    (site,) = folder.glob("lib/python*/site-packages")
    for name in with_what_they_need(packages):
        files = distribution(name).files or ()
        for top in {file.parts[0] for file in files} - {"..", "__pycache__"}:
            if not (site / top).exists():
                (site / top).symlink_to(Path(str(distribution(name).locate_file(top))))
    return str(folder / "bin" / "python")


def with_what_they_need(packages: tuple[str, ...]) -> set[str]:
    """The packages and all that they require, extras aside."""
    found: set[str] = set()
    left = list(packages)
    while left:
        name = left.pop()
        if name not in found:
            found.add(name)
            needs = [Requirement(line) for line in distribution(name).requires or ()]
            left += [one.name for one in needs if one.marker is None or one.marker.evaluate({"extra": ""})]
    return found
