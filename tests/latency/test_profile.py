from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from export.errors import UserError
from export.graph import to_onnx_bytes
from latency.devices import resolve
from latency.profile import Graph, Profiled, measure_network, profile
from latency.protocol import Timing
from latency.table import LatencyTable

BRIEF = Timing(repeats=2, warmup_ms=0, min_ms=0, min_runs=3)
CPU = resolve("cpu")


class Add(nn.Module):
    """Two inputs of different size, as where two paths meet."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a + nn.functional.interpolate(b, scale_factor=2.0)


def conv() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4))


CONV = Graph(key="conv@8", build=conv, input_shapes=((3, 8, 8),))
ADD = Graph(key="add@8", build=Add, input_shapes=((3, 8, 8), (3, 4, 4)))


def run(path: Path, *graphs: Graph) -> Profiled:
    return profile(graphs, path=path, device=CPU, timing=BRIEF)


def test_each_block_is_measured_once_and_the_table_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    result = run(path, CONV, ADD, CONV)
    assert result.measured == ("conv@8", "add@8")
    assert all(entry.runs == 2 * 3 for entry in result.table.entries.values())
    assert LatencyTable.load(path, device="cpu") == result.table


def test_an_existing_table_is_extended_by_what_it_lacks(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    first = run(path, CONV)
    second = run(path, CONV, ADD)
    assert second.measured == ("add@8",)
    assert second.table.entries["conv@8"] == first.table.entries["conv@8"]
    assert run(path, ADD, CONV).measured == ()


def test_a_table_of_another_protocol_is_not_mixed_with(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    run(path, CONV)
    before = path.read_bytes()
    with pytest.raises(UserError, match="do not compare with it"):
        profile([ADD], path=path, device=CPU, timing=Timing())
    with pytest.raises(UserError, match="threads=2"):
        profile([ADD], path=path, device=CPU, timing=BRIEF, threads=2)
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


def test_progress_tells_of_both_stages_and_the_random_state_is_left_alone(tmp_path: Path) -> None:
    steps: list[tuple[str, int, int]] = []
    torch.manual_seed(1)
    wanted = torch.rand(3)
    torch.manual_seed(1)
    path = tmp_path / "t.json"
    profile([CONV, ADD], path=path, device=CPU, timing=BRIEF, progress=lambda *step: steps.append(step))
    assert steps == [("export", 1, 2), ("export", 2, 2), *(("measure", done, 4) for done in range(1, 5))]
    assert torch.equal(torch.rand(3), wanted)


def test_a_whole_network_is_measured_by_the_same_protocol(tmp_path: Path) -> None:
    content = to_onnx_bytes(conv(), (torch.ones(1, 3, 8, 8),), input_names=["x"], output_names=["y"])
    assert measure_network(content, (2, 3, 8, 8), timing=BRIEF).runs == 2 * 3
    two = to_onnx_bytes(Add(), (torch.ones(1, 3, 8, 8), torch.ones(1, 3, 4, 4)), input_names="ab", output_names="y")
    with pytest.raises(UserError, match="of one input"):
        measure_network(two, (1, 3, 8, 8), timing=BRIEF)
