import json
from dataclasses import replace
from pathlib import Path

import pytest

from export.errors import UserError
from fbnetv5.architecture import load_architecture
from fbnetv5.cli.search import _table, print_found


@pytest.mark.parametrize("as_json", [False, True], ids=["table", "json"])
@pytest.mark.parametrize("has_signal", [False, True])
def test_a_task_without_a_signal_is_warned_about_on_stderr(
    networks: Path, capsys: pytest.CaptureFixture[str], *, as_json: bool, has_signal: bool
) -> None:
    found = load_architecture(networks / "cls.json")
    panel = {"architectures": 24, "rank_correlation": 0.1, "p_value": 0.3, "has_signal": has_signal}
    print_found(Path("run"), {"cls": replace(found, provenance={**found.provenance, "panel": panel})}, as_json=as_json)
    printed = capsys.readouterr()
    assert ("cls: the search found no signal" in printed.err) is not has_signal
    assert "no signal" not in printed.out
    if as_json:
        assert json.loads(printed.out)["architectures"]["cls"]["provenance"]["panel"] == panel


def test_the_only_table_of_a_device_is_found_and_several_are_named(tmp_path: Path) -> None:
    (tmp_path / "orin-fp16-b1.json").write_text('{"kind": "measured"}')
    (tmp_path / "orin-int8-b1-estimated.json").write_text('{"kind": "estimated"}')
    assert _table("orin", None, tmp_path) == tmp_path / "orin-fp16-b1.json"
    (tmp_path / "orin-int8-b1.json").write_text('{"kind": "measured"}')
    with pytest.raises(UserError, match=r"several latency tables of orin: .*fp16-b1.json, .*int8-b1.json; choose"):
        _table("orin", None, tmp_path)
    (tmp_path / "orin-fp32-b1.json").touch()
    assert _table("orin", None, tmp_path) == tmp_path / "orin-fp32-b1.json"
