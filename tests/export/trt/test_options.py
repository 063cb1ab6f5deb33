import json
import re
from pathlib import Path
from typing import Any

import pytest

from export.errors import UserError
from export.trt.options import EngineOptions, options_from_json

ALL = EngineOptions(
    workspace_mb=512, timing_cache=Path("/times"), level=5, compatible="ampere_plus", version_compatible=True
)


@pytest.mark.parametrize("options", [EngineOptions(), ALL], ids=["none", "all"])
def test_options_are_read_back_from_json(options: EngineOptions) -> None:
    assert options_from_json(json.loads(json.dumps(options.to_json()))) == options


def test_a_file_may_leave_options_out_and_has_relative_paths(tmp_path: Path) -> None:
    path = tmp_path / "options.json"
    path.write_text('{"level": 0, "timing_cache": "times.bin"}')
    assert EngineOptions.load(path) == EngineOptions(level=0, timing_cache=tmp_path / "times.bin")
    path.write_text("{}")
    assert EngineOptions.load(path) == EngineOptions()


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "unknown": (
        {"fp16": True},
        "no engine option 'fp16'; known are workspace_mb, timing_cache, level, compatible, version_compatible",
    ),
    "no memory": ({"workspace_mb": 0}, "workspace_mb is 0, where a whole number of at least 1"),
    "half a megabyte": ({"workspace_mb": 0.5}, "workspace_mb is 0.5"),
    "a boolean for memory": ({"workspace_mb": True}, "workspace_mb is True"),
    "too high a level": ({"level": 6}, "level is 6, where a whole number from 0 to 5"),
    "a string for a level": ({"level": "best"}, "level is 'best'"),
    "an unknown compatibility": ({"compatible": "all"}, "compatible is 'all', where one of '', 'ampere_plus'"),
    "a number for a boolean": ({"version_compatible": 1}, "version_compatible is 1, where true or false"),
    "a number for a path": ({"timing_cache": 1}, "timing_cache is 1, where the path of a file"),
    "an empty path": ({"timing_cache": ""}, "timing_cache is '', where the path of a file"),
}


@pytest.mark.parametrize(("document", "message"), WRONG.values(), ids=WRONG)
def test_a_wrong_option_is_named_with_its_file(tmp_path: Path, document: dict[str, Any], message: str) -> None:
    path = tmp_path / "options.json"
    path.write_text(json.dumps(document))
    with pytest.raises(UserError, match=re.escape(f"engine options file {path}: ") + ".*" + re.escape(message)):
        EngineOptions.load(path)


def test_a_file_that_is_not_an_object_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "options.json"
    path.write_text("[]")
    with pytest.raises(UserError, match=r"engine options file .* contains list"):
        EngineOptions.load(path)
