import json
from dataclasses import replace
from pathlib import Path

import pytest

from fbnetv5.architecture import load_architecture
from fbnetv5.printing import print_found


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
