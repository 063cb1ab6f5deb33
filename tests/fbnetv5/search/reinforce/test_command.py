from pathlib import Path

import pytest

from fbnetv5 import api


def test_a_search_refuses_wrong_options(tmp_path: Path) -> None:
    for options, message in (
        ({}, "this needs a budget: --flops"),
        ({"flops": -1e6}, "is not a positive number with its unit"),
        ({"flops": 4e8, "tasks": ["pose"]}, "unknown task 'pose'"),
        ({"flops": 4e8, "config": {"step": 3}}, "config: there is no field 'step' to set"),
        ({"flops": 4e8, "size": (65, 65)}, "multiples of 32"),
        (
            {"latency": "8ms@96", "device": "cpu", "luts": tmp_path, "tasks": "cls", "variant": "c"},
            f"fbnetv5 profile --device cpu --variant c --resolution 96x96 --tasks cls --luts {tmp_path}$",
        ),
    ):
        with pytest.raises(api.UserError, match=message):
            api.search(**options, runs=tmp_path / "runs")
    with pytest.raises(api.UnavailableError, match="device 'a100' is not here"):
        api.search(latency="8ms", device="a100", luts=tmp_path)
