from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fbnetv5 import api
from latency.runtimes.onnxruntime import CpuBackend
from tests.contract.schemas import check_document
from tests.fbnetv5.cli.conftest import brief_timing

TINY_SPACE: dict[str, Any] = {"stages": 1, "blocks_per_path": 1}


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> api.MeasuredTable:
    """A latency table of the classifiers of the smallest space, whose times mean nothing."""
    with brief_timing():
        scope = api.scope(**TINY_SPACE, tasks="cls", resolution=64)
        return api.profile(scope=scope, networks=9, luts=tmp_path_factory.mktemp("luts"))


def test_a_table_is_measured_planned_verified_and_estimated(table: api.MeasuredTable, tmp_path: Path) -> None:
    check_document(["profile"], table.to_json())
    scope = api.scope(**TINY_SPACE, tasks="cls", resolution=64)
    with brief_timing():  # a table is extended with its own timing only
        plan = api.profile_plan(scope=scope, networks=9, luts=table.path.parent)
    check_document(["profile", "--dry-run"], plan.to_json())
    assert plan.plan.blocks == plan.plan.networks == {}
    with brief_timing():
        check_document(["profile", "verify"], api.profile_verify(table.path, scope=scope, networks=2).to_json())
    estimated = api.profile_estimate("a100", scope=scope, precision="fp16", luts=tmp_path)
    check_document(["profile", "estimate"], estimated.to_json())
    assert set(estimated.keys) == set(table.keys)
    with pytest.raises(api.UnavailableError, match="device 'a100' is not here"):
        api.profile("a100", scope=scope, luts=tmp_path)


@pytest.mark.parametrize("command", [api.profile, api.profile_plan])
def test_an_error_that_a_notebook_keeps_leaves_no_device_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: Callable[..., object]
) -> None:
    closed: list[CpuBackend] = []
    monkeypatch.setattr(CpuBackend, "close", lambda backend: closed.append(backend))
    (tmp_path / "cpu-fp32-b1.json").write_text("{")
    with pytest.raises(api.UserError, match="damaged"):
        command(scope=api.scope(**TINY_SPACE, tasks="cls", resolution=64), networks=9, luts=tmp_path)
    assert len(closed) == 1


def test_a_bundle_is_written_and_not_imported_before_it_is_measured(tmp_path: Path) -> None:
    scope = api.scope(**TINY_SPACE, tasks="cls", resolution=32)
    written = api.profile_bundle(tmp_path / "b", scope=scope, networks=0)
    check_document(["profile", "bundle"], written.to_json())
    with pytest.raises(api.UserError, match="was not measured yet"):
        api.profile_import(tmp_path / "b", scope=scope, luts=tmp_path)
