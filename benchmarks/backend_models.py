"""Does ``fbnetv5 check`` decide as NVIDIA's builder does, and does it explain its refusals, on onnx's own test models?

Expected: the check crashes on none of them; at most 2 % of the models that it accepts without a build do not build; and
every refusal has a hint. The models are those that onnx tests backends with: one operator each, some with all of its
options, and small networks. They are sorted by name, and every fifth is checked, with and without a build.

    python -m benchmarks.backend_models --results backend.jsonl

Needs tensorrt-rtx, and no GPU; about five minutes on two cores. Started again with the same file of results it checks
only the models that are missing. ``--table 30`` prints that many refusals, drawn at random, as a table in Markdown.
Ends in one JSON line.
"""

import argparse
import json
import random
import shutil
import tempfile
import textwrap
import warnings
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from export.errors import UserError
from export.trt.check import CheckResult, check

LIMIT = 0.02
"""Largest share of the models that are accepted without a build and do not build."""
PACKAGED = ("simple", "pytorch-converted", "pytorch-operator")
"""The kinds of models that are files of the package; ``real`` models are downloaded, and left out."""
MESSAGE_WIDTH = 200
"""Characters of NVIDIA's text in the table."""
BUILT, VALIDATED = "built", "validated"


def write_models(folder: Path) -> list[Path]:
    """Write all of onnx's test models of operators and copy those of its package; their paths, sorted by name."""
    import onnx
    from onnx.backend.test.case.node import collect_testcases
    from onnx.backend.test.loader import load_model_tests

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # some cases overflow on purpose
        for case in collect_testcases(None):
            assert case.model is not None
            onnx.save(case.model, folder / f"node-{case.name}.onnx")
    for kind in PACKAGED:
        for case in load_model_tests(kind=kind):
            shutil.copy(Path(str(case.model_dir)) / "model.onnx", folder / f"{kind}-{case.name}.onnx")
    return sorted(folder.glob("*.onnx"))


def check_model(path: Path) -> dict[str, Any]:
    """The results of the check with and without a build; ``error`` if the check itself failed."""
    try:
        return {BUILT: _summary(check(path, build=True)), VALIDATED: _summary(check(path, build=False))}
    except UserError as error:
        return {"error": str(error)}


def _summary(result: CheckResult) -> dict[str, Any]:
    return {"accepted": result.accepted, "problems": result.to_json()["problems"], "runtime": result.version}


def check_missing(paths: Sequence[Path], results: Path, jobs: int) -> dict[str, dict[str, Any]]:
    """The results of all models by name: those in the file, and the missing ones, which are appended to it."""
    lines = results.read_text(encoding="utf-8").splitlines() if results.exists() else []
    done = {record.pop("model"): record for record in map(json.loads, lines)}
    missing = [path for path in paths if path.stem not in done]
    with results.open("a", encoding="utf-8") as file, ThreadPoolExecutor(jobs) as pool:
        for path, record in zip(missing, pool.map(check_model, missing), strict=True):
            done[path.stem] = record
            file.write(json.dumps({"model": path.stem, **record}) + "\n")
            file.flush()
    return {path.stem: done[path.stem] for path in paths}


def figures(records: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Counts of models; ``share_not_built`` is of those that are accepted without a build."""
    records = list(records)
    checked = [record for record in records if "error" not in record]
    accepted = [record for record in checked if record[VALIDATED]["accepted"]]
    not_built = sum(not record[BUILT]["accepted"] for record in accepted)
    refused = [record for record in checked if not record[BUILT]["accepted"]]
    problems = [problem for record in refused for problem in record[BUILT]["problems"]]
    share = not_built / len(accepted) if accepted else 0.0
    return {
        "models": len(records),
        "errors": len(records) - len(checked),
        "built": len(checked) - len(refused),
        "accepted_without_build": len(accepted),
        "not_built": not_built,
        "share_not_built": round(share, 4),
        "refused_without_build_but_built": sum(
            record[BUILT]["accepted"] and not record[VALIDATED]["accepted"] for record in checked
        ),
        "refused_by_builder": sum(record[BUILT]["problems"][0]["stage"] == "builder" for record in refused),
        "library_crashes": sum(problem["code"] == "CRASHED" for problem in problems),
        "problems": len(problems),
        "problems_without_hint": sum(problem["hint"] is None for problem in problems),
        "as_expected": len(records) == len(checked)
        and share <= LIMIT
        and all(problem["hint"] is not None for problem in problems),
    }


def refusals_table(records: Mapping[str, Mapping[str, Any]], count: int, seed: int) -> str:
    """A Markdown table of refused models drawn at random: NVIDIA's text and what ``check`` prints."""
    refused = [name for name, record in records.items() if "error" not in record and not record[BUILT]["accepted"]]
    lines = ["| model | node | NVIDIA | hint |", "|---|---|---|---|"]
    for name in sorted(random.Random(seed).sample(refused, min(count, len(refused)))):
        problem = records[name][BUILT]["problems"][0]
        node = problem["operator"] or "the file"
        message = textwrap.shorten(problem["message"], MESSAGE_WIDTH, placeholder=" ...").replace("|", "\\|")
        lines.append(f"| {name} | {node} | {problem['stage']}: {message} | {problem['hint']} |")
    return "\n".join(lines)


def main() -> None:
    """Check the models, print a table if asked, and one JSON line."""
    parser = argparse.ArgumentParser(description="fbnetv5 check on onnx's test models of backends.")
    parser.add_argument("--results", type=Path, default=Path("backend_models.jsonl"), help="file of results, appended")
    parser.add_argument("--every", type=int, default=5, help="check every n-th model")
    parser.add_argument("--jobs", type=int, default=2, help="number of checks at the same time")
    parser.add_argument("--table", type=int, default=0, help="number of refusals to print as a table")
    parser.add_argument("--seed", type=int, default=0, help="seed of the refusals")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fbnetv5-") as folder:
        paths = write_models(Path(folder))[:: arguments.every]
        records = check_missing(paths, arguments.results, arguments.jobs)
    if arguments.table:
        print(refusals_table(records, arguments.table, arguments.seed))
    runtimes = {record[BUILT]["runtime"] for record in records.values() if "error" not in record}
    print(json.dumps({"benchmark": "backend_models", **figures(records.values()), "runtimes": sorted(runtimes)}))


if __name__ == "__main__":
    main()
