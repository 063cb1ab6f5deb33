import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.progress import Progress

from fbnetv5.architecture import Architecture, load_architecture
from fbnetv5.cli.search import print_search, search_report
from fbnetv5.costs.budgets import Budget
from fbnetv5.costs.tables import keyed_table
from fbnetv5.data.config import DataConfig
from fbnetv5.data.scenes import CLASSES
from fbnetv5.search.reinforce.command import SearchResult
from fbnetv5.search.reinforce.config import SearchConfig
from fbnetv5.search.reinforce.entry import SearchEntry
from fbnetv5.search.reinforce.prepare import prepare
from fbnetv5.spaces.four_path import FourPathSpace
from fbnetv5.tasks import make_tasks
from latency.table import LatencyTable
from tests.command_line import QUICK, SMALL, assert_refused, document, in_process

WRONG = {
    "no budget": ([], "needs a budget: --flops, such as 400M, --latency, such as 8ms, or --params, such as 5M"),
    "two budgets without a table": (["--flops", "400M", "--latency", "8ms"], "add --device cpu, or --table FILE"),
    "params out of reach": (
        ["--flops", "400M", "--params", "10K", "--tasks", "cls"],
        "budget 0.01M parameters for cls is outside what this space offers",
    ),
    "two families": (
        ["--flops", "1M", "--flops", "2M", "--params", "1M", "--params", "2M"],
        "repeat one of --flops, --latency, --params, --cost and --memory, not two",
    ),
    "a member out of reach": (
        ["--flops", "400M", "--flops", "1M", "--tasks", "cls"],
        "budget 1.0M for cls at 224x224 is outside what this space offers",
    ),
    "params in ms": (["--flops", "400M", "--params", "5ms"], "such as 5M parameters"),
    "two resolutions": (["--flops", "400M@64x64", "--params", "5M@96x96"], "one resolution, not for 64x64 and 96x96"),
    "no unit": (["--flops", "400"], "positive number with its unit"),
    "negative": (["--flops=-1M"], "positive number with its unit"),
    "too small": (["--flops", "1M"], "outside what this space offers"),
    "too large": (["--flops", "900G"], "outside what this space offers"),
    "unknown task": (["--flops", "400M", "--tasks", "cls,pose"], "unknown task 'pose'"),
    "unknown variant": (
        ["--flops", "400M", "--variant", "q"],
        "variant: must be 'a', 'c', 'f', 'ac' or 'a-lite', not 'q'",
    ),
    "no such folder": (["--flops", "400M", "--data", "nowhere"], "nowhere"),
    "unknown fit": (["--flops", "400M", "--fit", "crop"], "unknown fit 'crop'; there are: stretch, letterbox"),
    "fit of a resumed run": (["--resume", "r", "--fit", "stretch"], "leave out --fit"),
    "odd size": (["--flops", "400M", "--size", "65x65"], "multiples of 32"),
    "no run to resume": (["--resume", "runs/none"], "does not exist"),
    "other options": (["--resume", "r", "--seed", "0", "--config", "c"], "leave out --seed, --config"),
    "a task is added with other settings": (
        ["--add", "depth", "--tasks", "cls", "--size", "64"],
        "leave out --tasks, --size",
    ),
    "a run without --add": (["--flops", "400M", "--run", "runs/one"], "name the task with --add"),
    "a resumed run with --add": (["--resume", "r", "--add", "depth"], "leave out --add"),
    "a family with --add": (["--add", "depth", "--flops", "1G", "--flops", "2G"], "--add finds one network: give each"),
    "no run to add a task to": (["--add", "depth"], "runs/latest/config.json does not exist"),
    "no table": (["--latency", "8ms", "--device", "cpu"], "fbnetv5 profile --device cpu"),
    "unknown space": (
        ["--flops", "400M", "--space", "wider"],
        "unknown space 'wider'; there are: default, strict, wide",
    ),
    "a cost without a budget": (
        ["--cost", "e.json"],
        "--cost 'e.json' must be a file and its budget, such as energy.json=5",
    ),
    "memory alone": (["--memory", "8MB"], "--memory only limits what another budget allows"),
    "memory without a unit": (["--flops", "400M", "--memory", "8"], "positive number with its unit, such as 8MB"),
    "too little memory": (
        ["--flops", "400M", "--memory", "6MB", "--tasks", "cls"],
        "no network for cls at 224x224 was found with a peak of at most 6 MB of activations; the lowest has 6.42 MB",
    ),
    "no cost file": (["--cost", "e.json=5"], "cost file e.json does not exist"),
    "no device": (["--latency", "8ms"], "add --device cpu, or --table FILE"),
}


@pytest.mark.parametrize(("options", "message"), WRONG.values(), ids=WRONG)
def test_a_mistake_is_one_line_and_exit_code_2(tmp_path: Path, options: list[str], message: str) -> None:
    assert_refused(["search", *options], message, cwd=tmp_path)


@pytest.mark.parametrize("name", ["group/new", "..", "latest", ""])
def test_the_name_of_a_run_is_no_path(tmp_path: Path, name: str) -> None:
    message = f"--name {name!r} is not the name of a folder in --runs"
    assert_refused(["search", "--flops", "15M@64x64", *SMALL, "--name", name], message, cwd=tmp_path)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ('{"step": 3}', "no field 'step'"),
        ('{"steps": "3"}', "search: steps: must be a valid integer, not '3'"),
        ("[1]", "not a JSON object"),
    ],
)
def test_a_wrong_config_file_names_the_field(tmp_path: Path, fields: str, message: str) -> None:
    (tmp_path / "c.json").write_text(fields)
    assert_refused(["search", "--flops", "400M", "--config", "c.json"], message, cwd=tmp_path)


def test_a_budget_just_outside_is_printed_with_the_digits_that_differ(tmp_path: Path) -> None:
    low = document("space", *SMALL, "--resolution", "64x64", "--tasks", "cls", cwd=tmp_path)["macs"]["cls"]["min"]
    flops = f"{(low - 1) / 1e6:.6f}M@64x64"
    message = f"budget {(low - 1) / 1e6:.6f}M for cls at 64x64 is outside what this space offers: {low / 1e6:.6f}M"
    assert_refused(["search", "--flops", flops, "--tasks", "cls", *SMALL], message, cwd=tmp_path)


def test_a_search_finds_a_network_per_task(work: Path) -> None:
    printed = json.loads((work / "search.json").read_text(encoding="utf-8"))
    assert printed["run"] == "runs/one"
    assert set(printed["architectures"]) == {"cls", "det", "seg"}


def test_a_task_is_added_to_a_finished_search(work: Path) -> None:
    (work / "later.json").write_text('{"steps": 4}', encoding="utf-8")
    printed = document("search", "--add", "depth", "--run", "runs/one", "--config", "later.json", cwd=work)
    folder = work / printed["run"]
    assert printed["run"] == "runs/one/added/depth"
    architecture = load_architecture(folder / "depth.json")
    assert printed["architectures"] == {"depth": architecture.to_json()}
    assert 0.85 * 15e6 <= architecture.cost.macs <= 15e6
    shown = document("show", f"{printed['run']}/depth.json", cwd=work)
    assert shown["provenance"]["added_to"] == str(work / "runs" / "one")
    assert architecture.cost.latency_ms is None  # the table of the run has no head of depth
    assert (folder / "report.html").exists()
    assert_refused(["search", "--add", "det", "--run", "runs/one"], "has a network for det", cwd=work)


@pytest.mark.slow
def test_the_folder_of_an_added_task_works_like_that_of_a_run(work: Path) -> None:
    (work / "later.json").write_text('{"steps": 4}', encoding="utf-8")
    added = document("search", "--add", "saliency", "--run", "runs/one", "--config", "later.json", cwd=work)["run"]
    file, few = f"{added}/saliency.json", {"steps": 2, "batch": 4, "evaluate_every": 2, "scenes": [24, 12, 16]}
    (work / "few.json").write_text(json.dumps(few), encoding="utf-8")
    for command in (
        ("train", "--arch", file, "--config", "few.json"),
        ("export", "--run", added, "--task", "saliency"),
        ("derive", added, "--flops", "17M"),
        ("eval", "--arch", file),
        ("report", added),
    ):
        done = in_process(*command, cwd=work)
        assert done.returncode == 0, done.stderr
    assert (work / added / "derived" / "17M" / "saliency.json").exists()


@pytest.mark.slow
def test_a_search_within_milliseconds_follows_the_table(work: Path) -> None:
    space = FourPathSpace(stages=1, blocks_per_path=1)
    table = LatencyTable.load(work / "luts" / "cpu-fp32-b1.json")
    task = make_tasks(("det",), CLASSES)["det"]
    costs = keyed_table(space, task, (64, 64), table.values_ms)
    budget = (costs.min_cost + costs.max_cost) / 2
    quick = ["--tasks", "det", "--device", "cpu", "--config", str(QUICK), "--runs", "in-ms", *SMALL]
    printed = document("search", "--latency", f"{budget:.6f}ms@64x64", *quick, cwd=work)
    latency = printed["architectures"]["det"]["cost"]["latency_ms"]
    assert 0.85 * budget <= latency["value"] <= budget
    assert latency["table"] == "cpu-fp32-b1"


def test_a_search_meets_several_budgets_at_once_and_those_of_a_family(tmp_path: Path) -> None:
    budgets = ["--flops", "24M@64x64", "--flops", "30M@64x64", "--params", "cls=5M,2.2M"]
    options = ["--tasks", "cls,seg", "--config", str(QUICK), "--name", "s", *SMALL]
    printed = document("search", *budgets, *options, cwd=tmp_path)
    label = "24M@64x64+cls=5M,2.2M-params"
    assert list(printed["family"]) == [label]
    for macs, networks in ((30e6, printed["architectures"]), (24e6, printed["family"][label])):
        for task, params in (("cls", 5e6), ("seg", 2.2e6)):
            cost = networks[task]["cost"]
            assert 0.85 <= max(cost["macs"] / macs, cost["params"] / params) <= 1.0
    member = load_architecture(tmp_path / "runs/s/derived" / label / "seg.json")
    assert member.to_json() == printed["family"][label]["seg"]
    last = json.loads((tmp_path / "runs/s/history.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    names = ["cls/macs", "cls/params", "seg/macs", "seg/params"]
    assert list(last["expected_cost"]) == list(last["multiplier"]) == names
    assert {budget.unit for budget in SearchConfig.load(tmp_path / "runs/s").budgets["seg"]} == {"macs", "params"}
    derived = document("derive", "runs/s", "--flops", "26M", "--params", "cls=4.6M,2M", cwd=tmp_path)
    assert derived["folder"] == "runs/s/derived/26M+cls=4.6M,2M-params"
    seg = derived["architectures"]["seg"]
    assert 0.85 <= max(seg["cost"]["macs"] / 26e6, seg["cost"]["params"] / 2e6) <= 1.0
    assert len(seg["provenance"]["derived_from"]["budgets"]) == len(seg["provenance"]["budgets"]) == 2


def cost_file(folder: Path, **values: float) -> Path:
    """A filled-in cost file of the small space: every block and head costs 1 mJ but those of ``values``."""
    options = ("--resolution", "64x64", "--tasks", "cls,seg", "--cost-template", "energy.json")
    assert in_process("space", *SMALL, *options, cwd=folder).returncode == 0
    content = json.loads((file := folder / "energy.json").read_text(encoding="utf-8"))
    filled = dict.fromkeys(content["values"], 1.0) | values
    file.write_text(json.dumps({**content, "name": "energy", "unit": "mJ", "values": filled}), encoding="utf-8")
    return file


def test_a_search_meets_the_budget_of_a_cost_file_from_its_run_folder_alone(tmp_path: Path) -> None:
    file = cost_file(tmp_path, unknown=3.0)
    options = ["--tasks", "cls,seg", "--config", str(QUICK), "--name", "s", *SMALL]
    cost = ["--cost", "energy.json=cls=20@64x64,22@64x64", "--flops", "30M"]
    done = in_process("search", *cost, *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "networks of this space cost 8 mJ to 33 mJ of energy" in done.stderr
    assert "1 keys of the cost file of energy are of no block of this search and not used: unknown" in done.stderr
    file.unlink()
    found = {task: load_architecture(tmp_path / f"runs/s/{task}.json") for task in ("cls", "seg")}
    for task, limit in (("cls", 20), ("seg", 22)):
        energy = found[task].cost.quantities["energy_mJ"]
        assert energy == len(found[task].graph.steps) + 1 <= limit
        assert f" {energy:.0f} mJ " in done.stdout
    before = (tmp_path / "runs/s/pareto.json").read_bytes()
    (tmp_path / "runs/s/pareto.json").unlink()
    document("search", "--resume", "runs/s", cwd=tmp_path)
    assert (tmp_path / "runs/s/pareto.json").read_bytes() == before
    derived = document("derive", "runs/s", "--cost", "energy=17", cwd=tmp_path)["architectures"]["seg"]
    assert 0.85 * 17 <= derived["cost"]["quantities"]["energy_mJ"] <= 17
    shown = document("show", "runs/s/cls.json", cwd=tmp_path)
    assert shown["quantities"] == found["cls"].cost.quantities
    assert_refused(["derive", "runs/s", "--cost", "power=3"], "which has: energy", cwd=tmp_path)
    assert_refused(["derive", "runs/s", "--cost", "energy=400"], "budget 400 mJ of energy for cls", cwd=tmp_path)
    added = ["search", "--add", "depth", "--run", "runs/s", "--flops", "20M", "--cost", "energy=20"]
    assert_refused(added, "has no value for 1 of the", cwd=tmp_path)


def test_the_peak_memory_of_a_network_is_in_its_files(tmp_path: Path) -> None:
    options = [
        "--flops",
        "25M@64x64",
        "--memory",
        "1MB",
        "--tasks",
        "cls",
        "--config",
        str(QUICK),
        "--name",
        "s",
        *SMALL,
    ]
    found = document("search", *options, cwd=tmp_path)["architectures"]["cls"]
    peak = found["cost"]["peak_activation_bytes"]
    assert 0 < peak <= 1e6
    (point,) = json.loads((tmp_path / "runs/s/pareto.json").read_text(encoding="utf-8"))["tasks"]["cls"]["points"]
    assert point["peak_activation_bytes"] == peak
    assert document("show", "runs/s/cls.json", cwd=tmp_path)["peak_activation_bytes"] == peak
    last = json.loads((tmp_path / "runs/s/history.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    assert list(last["expected_cost"]) == ["cls"]
    derived = document("derive", "runs/s", "--flops", "22M", "--memory", "600KB", cwd=tmp_path)
    assert derived["folder"] == "runs/s/derived/22M+600KB"
    assert in_process("report", "runs/s", cwd=tmp_path).returncode == 0
    assert "1 MB of activations at 64x64" in (tmp_path / "runs/s/report.html").read_text(encoding="utf-8")
    lowest = ["derive", "runs/s", "--flops", "22M", "--memory", "300KB"]
    assert_refused(lowest, "the lowest has 0.524 MB", cwd=tmp_path)


def test_the_error_of_an_unreachable_latency_budget_has_the_range(work: Path) -> None:
    done = in_process("search", "--latency", "900ms@64x64", "--device", "cpu", *SMALL, cwd=work)
    assert done.returncode == 2
    assert "networks of this space cost" in done.stderr
    assert "outside what this space offers" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_table_without_the_needed_blocks_names_one_and_the_command(work: Path) -> None:
    done = in_process("search", "--latency", "3ms@96x96", "--device", "cpu", *SMALL, cwd=work)
    assert done.returncode == 2
    assert "blocks have no entry" in done.stderr
    assert "fbnetv5 profile --device cpu" in done.stderr


def test_a_table_without_the_blocks_of_the_wide_space_names_one_and_the_command(work: Path) -> None:
    options = ["search", "--space", "wide", "--latency", "3ms@64x64", "--device", "cpu", "--tasks", "cls", *SMALL]
    assert_refused(options, "blocks have no entry in the cpu table, first: ir_", cwd=work)
    assert "fbnetv5 profile --device cpu" in in_process(*options, cwd=work).stderr


def test_a_search_of_the_wide_space_works_to_the_report(tmp_path: Path) -> None:
    options = ["--space", "wide", "--tasks", "cls", "--config", str(QUICK), "--name", "w", *SMALL]
    found = document("search", "--flops", "20M@64x64", *options, cwd=tmp_path)["architectures"]["cls"]
    assert found["space"]["kind"] == "wide"
    assert 0.85 * 20e6 <= found["cost"]["macs"] <= 20e6
    derived = document("derive", "runs/w", "--flops", "17M", cwd=tmp_path)["architectures"]["cls"]
    assert 0.85 * 17e6 <= derived["cost"]["macs"] <= 17e6
    assert document("show", "runs/w/cls.json", cwd=tmp_path)["macs"] == found["cost"]["macs"]
    few = {"steps": 2, "batch": 4, "evaluate_every": 2, "scenes": [24, 12, 16]}
    (tmp_path / "few.json").write_text(json.dumps(few), encoding="utf-8")
    for command in (
        ("train", "--arch", "runs/w/cls.json", "--config", "few.json"),
        ("export", "--run", "runs/w"),
        ("report", "runs/w"),
    ):
        done = in_process(*command, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert "s1_p8_0.kernel" in (tmp_path / "runs/w/report.html").read_text(encoding="utf-8")


def test_a_table_without_the_head_of_a_task_is_refused_before_the_search(work: Path) -> None:
    options = ["--flops", "15M@64x64", "--device", "cpu", "--tasks", "depth", "--config", str(QUICK), *SMALL]
    assert_refused(["search", *options], "blocks have no entry in the cpu table, first: head_depth", cwd=work)


def with_panel(architecture: Architecture, *, has_signal: bool, **provenance: Any) -> Architecture:
    panel = {"architectures": 24, "rank_correlation": 0.1, "p_value": 0.3, "has_signal": has_signal}
    budget = {"limit": architecture.cost.macs, "unit": "macs"}
    return architecture.changed(provenance={"budget": budget, **architecture.provenance, "panel": panel, **provenance})


@pytest.mark.parametrize("as_json", [False, True], ids=["table", "json"])
@pytest.mark.parametrize("has_signal", [False, True])
def test_a_task_without_a_signal_is_warned_about_on_stderr(
    networks: Path, capsys: pytest.CaptureFixture[str], *, as_json: bool, has_signal: bool
) -> None:
    architecture = with_panel(load_architecture(networks / "cls.json"), has_signal=has_signal)
    print_search(SearchResult(run=Path("run"), architectures={"cls": architecture}, family={}), as_json=as_json)
    printed = capsys.readouterr()
    assert ("cls: the search found no signal" in printed.err) is not has_signal
    assert "no signal" not in printed.out
    if as_json:
        provenance = json.loads(printed.out)["architectures"]["cls"]["provenance"]
        assert provenance["panel"] == architecture.provenance["panel"]


@pytest.mark.parametrize("as_json", [False, True], ids=["table", "json"])
def test_a_network_that_leaves_a_part_of_its_budget_unused_is_told_on_stderr(
    networks: Path, capsys: pytest.CaptureFixture[str], *, as_json: bool
) -> None:
    architecture = load_architecture(networks / "cls.json")
    macs, params = architecture.cost.macs, architecture.cost.params
    partly = {"limit": macs / 0.94, "unit": "macs"}

    def printed(*, has_signal: bool = True, **provenance: Any) -> str:
        network = with_panel(architecture, has_signal=has_signal, **provenance)
        family = {"member": {"cls": with_panel(architecture, has_signal=True)}}
        print_search(SearchResult(run=Path("run"), architectures={"cls": network}, family=family), as_json=as_json)
        return capsys.readouterr().err

    line = f"cls: the network uses {macs / 1e6:.1f}M of {macs / 0.94e6:.1f}M: the panel's fit found no larger one"
    assert printed(budget=partly).startswith(line)
    assert "a search for this budget could tell better" not in printed(budget=partly)
    assert "a search for this budget could tell better" in printed(budget=partly, derived_from={"run": "r"})
    assert printed(budget={"limit": macs / 0.96, "unit": "macs"}) == ""
    assert "no larger one" not in printed(budget=partly, has_signal=False)  # a drawn network
    used = {"limit": params, "unit": "params"}
    assert printed(budgets=[partly, used]) == ""  # one budget that is used suffices
    memory = {"limit": 6.6e6, "unit": "bytes"}
    assert printed(budgets=[partly, memory]).startswith(line)  # a limit of memory is not there to be used up


def test_the_members_of_a_family_are_told_too(networks: Path, capsys: pytest.CaptureFixture[str]) -> None:
    architecture = with_panel(load_architecture(networks / "cls.json"), has_signal=True)
    unused = with_panel(architecture, has_signal=True, budget={"limit": 2 * architecture.cost.macs, "unit": "macs"})
    family = {"member": {"cls": unused}}
    print_search(SearchResult(run=Path("run"), architectures={"cls": architecture}, family=family), as_json=False)
    assert capsys.readouterr().err.count("cls: the network uses") == 1


def test_the_table_names_the_metric_of_each_task(networks: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = {task: with_panel(load_architecture(networks / f"{task}.json"), has_signal=True) for task in ("det", "seg")}
    print_search(SearchResult(run=Path("run"), architectures=found, family={}), as_json=False)
    header, *rows = capsys.readouterr().out.splitlines()
    assert "held-out metric" in header
    assert [row.split()[-4:] for row in rows] == [
        ["ap", "0.000", "0.10", "run/det.json"],
        ["miou", "0.000", "0.10", "run/seg.json"],
    ]


def test_the_progress_is_a_line_per_hundred_steps(capsys: pytest.CaptureFixture[str]) -> None:
    budget = Budget(limit=445e6, unit="macs")
    config = SearchConfig(
        budgets={"det": (budget,)},
        space=FourPathSpace(stages=1, blocks_per_path=1, strict=True),
        data=DataConfig(size=(32, 32), scenes=(24, 24, 16)),
    )
    report = search_report(Progress(disable=True), prepare(config))
    entry = SearchEntry(
        step=100,
        phase="weights",
        losses={"det": 1.25},
        expected_cost={"det": 431.2e6},
        entropy={"det": 0.6},
        multiplier={},
        effective_samples={},
        gradient_variance={},
    )
    for step in (99, 100):
        report(replace(entry, step=step))
    assert " ".join(capsys.readouterr().err.split()) == (
        "step 100 of 1800, weights: det loss 1.250, expected cost 431.2M, policy entropy 0.600 nats"
    )
