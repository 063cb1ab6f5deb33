from pathlib import Path

import pytest

from fbnetv5.cli.space import print_space
from tests.command_line import SMALL, assert_refused, document


def test_a_space_is_printed_with_its_size_and_costs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = document("space", *SMALL, "--resolution", "64x64", "--tasks", "seg", cwd=tmp_path)
    print_space("variant a", shown)
    first, _, row = capsys.readouterr().out.splitlines()
    assert first == (
        f"variant a: {len(shown['variables'])} variables, 2^{shown['log2_architectures']:.0f} architectures"
    )
    low, high = (f"{shown['macs']['seg'][key] / 1e6:.1f}M" for key in ("min", "max"))
    assert (row.split()[0], row.split()[1], row.split()[-1]) == ("seg", low, high)


def test_the_wide_space_is_shown(tmp_path: Path) -> None:
    options = ("space", *SMALL, "--resolution", "64x64", "--tasks", "seg")
    wide, default = (document(*options, *more, cwd=tmp_path) for more in (("--space", "wide"), ()))
    assert wide["space"]["kind"] == "wide"
    assert wide["log2_architectures"] > 2 * default["log2_architectures"]
    assert wide["macs"]["seg"]["max"] > default["macs"]["seg"]["max"]


def test_a_wrong_resolution_is_refused(tmp_path: Path) -> None:
    assert_refused(["space", "--resolution", "65x65"], "multiples of 32", cwd=tmp_path)
