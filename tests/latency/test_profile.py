import os
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from export.errors import UserError
from export.graph import to_onnx_bytes
from latency import protocol
from latency.devices import resolve
from latency.journal import Journal, exclusive_lock
from latency.profile import (
    Graph,
    Network,
    ProfileResult,
    measure_network,
    pick_remeasured,
    plan,
    profile,
    relative_speed,
)
from latency.protocol import Measurement, Repetition, Sampler, Timing
from latency.table import LatencyTable

BRIEF = Timing(repetitions=2, warmup_ms=0, min_ms=0, min_runs=3, max_cv=1e9)
CPU = resolve("cpu")


def repetition(*samples_ms: float) -> Repetition:
    return Repetition(samples_ms=samples_ms)


class Add(nn.Module):
    """Two inputs of different size, as where two paths meet."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a + nn.functional.interpolate(b, scale_factor=2.0)


def conv() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4))


CONV = Graph(key="conv@8", build=conv, input_shapes=((3, 8, 8),))
ADD = Graph(key="add@8", build=Add, input_shapes=((3, 8, 8), (3, 4, 4)))


def network(number: int) -> Network:
    """Some convolutions in a row, three channels in and out."""
    layers = nn.Sequential(*(nn.Conv2d(3, 3, 1) for _ in range(number)))
    return Network(
        key=f"net{number}@8",
        build=lambda: layers,
        input_shapes=((3, 8, 8),),
        task="net",
        blocks={"conv@8": number},
        macs=number,
    )


NETWORKS = [network(number) for number in range(1, 10)]


def run(path: Path, *graphs: Graph, networks: Sequence[Network] = ()) -> ProfileResult:
    return profile(graphs, networks, path=path, backend=CPU, timing=BRIEF)


class Killed(BaseException):
    """What a run that is killed meets."""


def killed_at(stage: str, step: int) -> Callable[[str, int, int], None]:
    """A progress that stops the run once a stage reached that step."""

    def progress(now: str, done: int, total: int) -> None:
        if (now, done) == (stage, step):
            raise Killed

    return progress


def test_each_block_is_measured_once_and_the_table_is_saved(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    result = run(path, CONV, ADD, CONV)
    assert result.measured == ("null", "conv@8", "add@8")
    assert result.table.overhead_ms > 0
    assert all(result.table.entries[key].runs == 2 * 3 for key in result.measured)
    assert set(result.table.standalone_ms) == {"conv@8", "add@8"}
    assert LatencyTable.load(path, device="cpu") == result.table


def test_a_graph_is_exported_once_for_both_times_it_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    exported = []

    def recorded(module: nn.Module, *arguments: Any, **options: Any) -> bytes:
        exported.append(type(module))
        return to_onnx_bytes(module, *arguments, **options)

    monkeypatch.setattr("latency.profile.to_onnx_bytes", recorded)
    run(tmp_path / "t.json", ADD)
    assert exported.count(Add) == 1


def test_a_table_is_extended_by_missing_blocks(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    first = run(path, CONV)
    second = run(path, CONV, ADD)
    assert second.measured == ("add@8",)
    assert second.table.entries["conv@8"] == first.table.entries["conv@8"]
    assert run(path, ADD, CONV).measured == ()


def test_new_blocks_are_scaled_to_the_speed_of_the_table(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    table = run(path, CONV).table
    slow = {key: entry.at_speed(100.0) for key, entry in table.entries.items()}
    table.changed(entries=slow).save(path)  # as if the machine had been a hundred times as slow then
    standalone_ms = run(tmp_path / "alone.json", ADD).table.entries["add@8"].latency_ms_median
    extended = run(path, CONV, ADD)
    assert extended.measured == ("add@8",)
    assert extended.table.entries["conv@8"] == slow["conv@8"]
    assert 20 * standalone_ms < extended.table.entries["add@8"].latency_ms_median < 500 * standalone_ms


def test_first_networks_of_an_old_table_are_scaled_to_its_speed_by_its_blocks(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    table = run(path, CONV).table
    slow = {key: entry.at_speed(100.0) for key, entry in table.entries.items()}
    table.changed(entries=slow).save(path)  # as if the machine had been a hundred times as slow then
    now_ms = run(tmp_path / "now.json", CONV, networks=NETWORKS).table.networks["net9@8"].measurement.latency_ms_median
    extended = run(path, CONV, networks=NETWORKS).table
    assert 20 * now_ms < extended.networks["net9@8"].measurement.latency_ms_median < 500 * now_ms
    assert extended.entries == slow
    assert list(tmp_path.glob("*.journal.jsonl")) == []


def test_remeasured_networks_are_few_and_of_all_sizes() -> None:
    earlier = {f"net{n}@8": Measurement.of([repetition(float(n)), repetition(float(n))]) for n in range(1, 100)}
    networks = [network(n) for n in range(1, 120)]
    chosen = list(pick_remeasured(networks, earlier))
    assert len(chosen) == 12
    assert chosen[0] == "net1@8"
    assert chosen[-1] == "net99@8"
    for count in (1, 2, 13, 23, 35):
        ends = list(pick_remeasured(networks[:count], earlier))
        assert (len(ends), ends[0], ends[-1]) == (min(12, count), "net1@8", f"net{count}@8")
    assert pick_remeasured(networks, {}) == {}
    assert relative_speed(
        earlier, {key: measurement.at_speed(0.5) for key, measurement in earlier.items()}
    ) == pytest.approx(2.0)
    assert relative_speed(earlier, {}) == 1.0


def test_a_table_of_another_protocol_is_not_extended(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    run(path, CONV)
    before = path.read_bytes()
    with pytest.raises(UserError, match="do not compare with it"):
        profile([ADD], path=path, backend=CPU, timing=Timing())
    with pytest.raises(UserError, match="threads=2"):
        profile([ADD], path=path, backend=resolve("cpu", threads=2), timing=BRIEF)
    assert path.read_bytes() == before


def test_a_damaged_table_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    path.write_text("{")
    with pytest.raises(UserError, match="damaged"):
        run(path, CONV)
    assert path.read_text() == "{"


def test_one_key_for_two_shapes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'conv@8' names two shapes"):
        run(tmp_path / "t.json", CONV, Graph(key="conv@8", build=conv, input_shapes=((3, 9, 9),)))


def test_progress_has_both_stages_and_the_random_state_is_unchanged(tmp_path: Path) -> None:
    steps: list[tuple[str, int, int]] = []
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    path = tmp_path / "t.json"
    profile([CONV, ADD], path=path, backend=CPU, timing=BRIEF, progress=lambda *step: steps.append(step))
    assert steps == [
        *(("blocks: open", done, 6) for done in range(1, 7)),
        *(("blocks: measure", done, 6) for done in range(1, 7)),
    ]
    assert torch.equal(torch.rand(3), expected)


def test_networks_are_measured_once_and_correct_the_blocks(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    table = run(path, CONV, networks=NETWORKS).table
    assert table.correction is not None
    assert table.correction.fitted_on == 6
    assert table.correction.held_out.networks == 3
    assert set(table.correction.latency_ms) == {"conv@8"}
    assert LatencyTable.load(path, device="cpu") == table
    assert run(path, CONV, networks=NETWORKS).measured == ()
    extended = run(path, CONV, ADD, networks=[*NETWORKS, network(10)])
    assert extended.measured == ("add@8", "net10@8")
    assert extended.table.correction is not None
    assert set(extended.table.correction.latency_ms) == {"conv@8", "add@8"}


def test_too_few_networks_are_refused_before_anything_is_measured(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="at least 9 measured networks, not 8"):
        run(tmp_path / "t.json", CONV, networks=NETWORKS[:8])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("stage", "step", "remeasured"), [("blocks: measure", 4, 0), ("networks: open", 2, 2), ("networks: measure", 7, 2)]
)
def test_a_killed_run_is_resumed_and_measures_only_finished_blocks_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, step: int, remeasured: int
) -> None:
    """Blocks in the table give the speed of the machine in the process that measures the networks."""
    repetitions: list[Timing] = []
    samples = protocol._samples

    def counted(sampler: Sampler, timing: Timing) -> list[float]:
        repetitions.append(timing)
        return samples(sampler, timing)

    monkeypatch.setattr(protocol, "_samples", counted)
    path = tmp_path / "t.json"
    with pytest.raises(Killed):
        profile([CONV, ADD], NETWORKS, path=path, backend=CPU, timing=BRIEF, progress=killed_at(stage, step))
    table = run(path, CONV, ADD, networks=NETWORKS).table
    assert len(repetitions) == 2 * (3 + 9 + remeasured)
    assert all(table.entries[key].runs == 2 * 3 for key in ("null", "conv@8", "add@8"))
    assert list(tmp_path.iterdir()) == [path]


def test_a_resumed_extension_drops_blocks_that_were_remeasured_before_the_table_grew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("latency.profile.MAX_REMEASURED", 1)  # the fastest: another one, once conv@8 is stored
    path = tmp_path / "t.json"
    large = Graph(key="large@64", build=conv, input_shapes=((3, 64, 64),))
    run(path, large)
    killed = killed_at("networks: measure", 19)  # of twice ten graphs
    with pytest.raises(Killed):
        profile([large, CONV], NETWORKS, path=path, backend=CPU, timing=BRIEF, progress=killed)
    assert "large@64 beside" in path.with_name("t.journal.jsonl").read_text()
    run(path, large, CONV, networks=NETWORKS)
    assert list(tmp_path.iterdir()) == [path]


def test_a_killed_extension_leaves_a_table_that_is_corrected_for_all_its_blocks(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    run(path, CONV, networks=NETWORKS)
    with pytest.raises(Killed):
        profile(
            [CONV, ADD],
            [*NETWORKS, network(10)],
            path=path,
            backend=CPU,
            timing=BRIEF,
            progress=killed_at("networks: measure", 3),
        )
    correction = LatencyTable.load(path).correction
    assert correction is not None
    assert set(correction.latency_ms) == {"conv@8", "add@8"}


def test_a_run_keeps_the_repetitions_of_another_interrupted_run(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    run(path, CONV)
    with pytest.raises(Killed):
        profile([CONV, ADD], path=path, backend=CPU, timing=BRIEF, progress=killed_at("blocks: measure", 3))
    other = Graph(key="other@8", build=conv, input_shapes=((3, 8, 8),))
    origin = {"fingerprint": CPU.fingerprint(), "timing": asdict(BRIEF)}
    (mine,) = [name for name in Journal(path, origin).repetitions if name.startswith("conv@8")]
    run(path, CONV, other)
    names = set(Journal(path, origin).repetitions)
    assert {mine, "add@8"} <= names  # and the other run did not take the old times of conv@8 for its own
    assert names <= {mine, "add@8", *(f"{key}{mine.removeprefix('conv@8')}" for key in ("null",))}
    run(path, CONV, ADD)
    assert list(tmp_path.iterdir()) == [path]


def test_a_plan_lists_missing_graphs_and_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    run(path, CONV)
    missing = plan([CONV, ADD], NETWORKS, path=path, backend=CPU, timing=BRIEF)
    assert list(missing.blocks) == ["add@8"]
    assert len(missing.networks) == 9
    assert list(tmp_path.iterdir()) == [path]


def test_two_runs_at_once_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    with exclusive_lock(path), pytest.raises(UserError, match=f"being written by process {os.getpid()}"):
        run(path, CONV)
    assert run(path, CONV).measured


def test_a_whole_network_is_measured_by_the_same_protocol(tmp_path: Path) -> None:
    content = to_onnx_bytes(conv(), (torch.ones(1, 3, 8, 8),), input_names=["x"], output_names=["y"])
    assert measure_network(content, (2, 3, 8, 8), timing=BRIEF).runs == 2 * 3
    two = to_onnx_bytes(Add(), (torch.ones(1, 3, 8, 8), torch.ones(1, 3, 4, 4)), input_names="ab", output_names="y")
    with pytest.raises(UserError, match="with one input"):
        measure_network(two, (1, 3, 8, 8), timing=BRIEF)
