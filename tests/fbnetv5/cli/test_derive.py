import json
from dataclasses import replace
from pathlib import Path

import pytest

from fbnetv5.architecture import load_architecture
from fbnetv5.cli.derive import print_derived
from fbnetv5.deploy.derive import Derived
from fbnetv5.runs.derivation import DerivationConfig
from tests.command_line import QUICK as QUICK_SEARCH
from tests.command_line import SMALL, assert_refused, document
from tests.fbnetv5.cli.test_branch import QUICK


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a finished search for a branched network in ``runs/b``."""
    folder = tmp_path_factory.mktemp("searched")
    (folder / "quick.json").write_text(json.dumps(QUICK), encoding="utf-8")
    options = ("--tasks", "cls,seg", "--config", "quick.json", "--name", "b")
    document("branch", "--flops", "10M@64x64", *options, cwd=folder)
    return folder


def test_a_derived_network_is_shown_and_evaluated_like_that_of_a_run(searched: Path) -> None:
    printed = document("derive", "runs/b", "--flops", "11M", cwd=searched)
    assert printed["folder"] == "runs/b/derived/11M"
    file = "runs/b/derived/11M/branched.json"
    architecture = load_architecture(searched / file)
    assert printed["architecture"] == architecture.to_json()
    assert architecture.cost.macs > load_architecture(searched / "runs/b/branched.json").cost.macs
    assert document("show", file, cwd=searched)["macs"] == architecture.cost.macs
    assert document("eval", "--arch", file, cwd=searched)["tasks"].keys() == {"cls", "seg"}
    assert_refused(["derive", "runs/b", "--flops", "11M"], "derived/11M exists already", cwd=searched)


def test_a_repeated_budget_gives_the_networks_of_each_value(searched: Path) -> None:
    printed = document("derive", "runs/b", "--flops", "9M", "--flops", "10.5M", cwd=searched)
    assert printed["folder"] == "runs/b/derived/9M"
    assert printed["family"].keys() == {"10.5M"}
    for label, one in {"9M": printed, **printed["family"]}.items():
        architecture = load_architecture(searched / one["folder"] / "branched.json")
        assert one["architecture"] == architecture.to_json()
        assert DerivationConfig.load(searched / one["folder"]).budget == label
    alone = document("derive", "runs/b", "--flops", "10.5M", "-o", "alone", cwd=searched)
    assert alone["architecture"] == printed["family"]["10.5M"]["architecture"]
    assert_refused(["derive", "runs/b", "--flops", "8M", "--flops", "9M"], "derived/9M exists already", cwd=searched)
    assert not (searched / "runs/b/derived/8M").exists()


WRONG = {
    "no budget": ([], "this needs a budget: --flops"),
    "two budgets": (
        ["--flops", "9M", "--latency", "9ms"],
        "one branched network, which takes one budget; 2 were given",
    ),
    "a budget of memory": (["--flops", "9M", "--memory", "8MB"], "to which --memory does not apply: leave it out"),
    "a latency without a table": (["--latency", "9ms"], "needs a latency table"),
    "a device without a table": (
        ["--latency", "9ms@64x96", "--device", "cpu"],
        "make it with: fbnetv5 profile --device cpu --encoder fbnetv3-a --width 0.25 --resolution 64x96 "
        "--tasks cls,seg",
    ),
    "a budget that is too small": (["--flops", "1K"], "if all tasks share every layer"),
    "a resolution to choose": (["--flops", "9M", "--resolutions", "64,96"], "compares the networks of fbnetv5 search"),
    "a resolution twice": (["--flops", "9M@64x64", "--resolutions", "64"], "leave out --resolutions, or @HxW"),
    "no resolution": (["--flops", "9M", "--resolutions", "60"], "height and width must be multiples of 32"),
    "a panel to pool": (["--flops", "9M", "--pool", "runs/b"], "--pool joins the panels of fbnetv5 search; runs/b is"),
    "a value in two forms": (["--flops", "8.5M", "--flops", " 8.5M"], "two values of the budget have one folder"),
    "a value twice": (["--flops", "9M", "--flops", "9M"], "the budget 9M is repeated"),
    "two repeated budgets": (
        ["--flops", "9M", "--flops", "8M", "--params", "1M", "--params", "2M"],
        "a family has one repeated budget",
    ),
    "one folder for a family": (["--flops", "9M", "--flops", "8M", "-o", "f"], "--output names one: leave it out"),
    "no amount": (["--flops", "much"], "is not a positive number with its unit"),
}


@pytest.mark.parametrize(("options", "message"), WRONG.values(), ids=WRONG)
def test_a_mistake_is_one_line_and_exit_code_2(searched: Path, options: list[str], message: str) -> None:
    assert_refused(["derive", "runs/b", *options], message, cwd=searched)


def test_a_search_gives_a_network_per_task(tmp_path: Path) -> None:
    options = ("--tasks", "cls,seg", "--config", str(QUICK_SEARCH), "--name", "s", *SMALL)
    document("search", "--flops", "32M@64x64", *options, cwd=tmp_path)
    printed = document("derive", "runs/s", "--flops", "seg=28M,30M", cwd=tmp_path)
    assert {key: printed[key] for key in ("run", "folder")} == {"run": "runs/s", "folder": "runs/s/derived/seg=28M,30M"}
    for task, limit in (("cls", 30e6), ("seg", 28e6)):
        architecture = load_architecture(tmp_path / printed["folder"] / f"{task}.json")
        assert printed["architectures"][task] == architecture.to_json()
        assert 0.85 * limit <= architecture.cost.macs <= limit
    assert document("eval", "--arch", "runs/s/derived/seg=28M,30M/seg.json", cwd=tmp_path)["task"] == "seg"
    document("search", "--flops", "32M@64x64", *options[:4], *SMALL, "--name", "t", "--seed", "1", cwd=tmp_path)
    pooled = document("derive", "runs/s", "--flops", "30M", "--flops", "29M", "--pool", "runs/t", cwd=tmp_path)
    assert pooled["folder"] == "runs/s/derived/30M+t"
    assert pooled["family"]["29M+t"]["architectures"]["seg"]["cost"]["macs"] <= 29e6
    assert_refused(["derive", "runs/s", "--flops", "30M", "--pool", "runs/u"], "runs/u", cwd=tmp_path)
    family = ("--flops", "30M", "--flops", "31M", "--resolutions", "64,64x96,64")
    chosen = document("derive", "runs/s", *family, cwd=tmp_path)
    assert chosen["folder"] == "runs/s/derived/30M@64x64+64x96"
    larger = chosen["family"]["31M@64x64+64x96"]["architectures"]
    assert all(len(network["provenance"]["resolutions"]) == 2 for network in larger.values())
    for task, architecture in chosen["architectures"].items():
        assert document("show", f"{chosen['folder']}/{task}.json", cwd=tmp_path)["macs"] <= 30e6
        assert len(architecture["provenance"]["resolutions"]) == 2
        exported = document(
            "export", "--run", chosen["folder"], "--task", task, "--output", f"out/{task}", cwd=tmp_path
        )
        assert exported["metric"]["resolution"] == architecture["resolution"]


def test_a_repeated_budget_gives_the_networks_of_a_later_task(tmp_path: Path) -> None:
    options = ("--tasks", "cls", "--config", str(QUICK_SEARCH), "--name", "s", *SMALL)
    document("search", "--flops", "32M@64x64", *options, cwd=tmp_path)
    (tmp_path / "few.json").write_text(json.dumps({"steps": 2}), encoding="utf-8")
    document("search", "--add", "depth", "--run", "runs/s", "--config", "few.json", cwd=tmp_path)
    printed = document("derive", "runs/s/added/depth", "--flops", "30M", "--flops", "29M", cwd=tmp_path)
    for limit, one in ((30e6, printed), (29e6, printed["family"]["29M"])):
        assert 0.85 * limit <= one["architectures"]["depth"]["cost"]["macs"] <= limit


def test_unused_budgets_are_told_for_each_value(networks: Path, capsys: pytest.CaptureFixture[str]) -> None:
    architecture = load_architecture(networks / "cls.json")
    macs = architecture.cost.macs

    def member(folder: str, limit: float) -> Derived:
        provenance = {
            **architecture.provenance,
            "budget": {"limit": limit, "unit": "macs"},
            "derived_from": {"run": "r"},
            "panel": {"rank_correlation": 0.5, "has_signal": True},
        }
        network = architecture.changed(provenance=provenance)
        return Derived(run=Path("r"), folder=Path(folder), architectures={"cls": network})

    family = replace(member("r/derived/a", macs), family={"b": member("r/derived/b", macs / 0.9)})
    print_derived(family, as_json=True)
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 1
    assert f"{macs / 1e6:.1f}M of {macs / 0.9e6:.1f}M" in told[0]
    assert "a search for this budget could tell better" in told[0]


def test_a_run_of_another_kind_is_refused(tmp_path: Path) -> None:
    DerivationConfig(run="r", budget="700M", task_names=("cls",)).save(tmp_path)
    message = "networks of another budget come from runs of fbnetv5 search, branch and nars"
    assert_refused(["derive", ".", "--flops", "9M"], message, cwd=tmp_path)
