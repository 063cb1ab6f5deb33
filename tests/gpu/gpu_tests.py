"""Part "tests": ``pytest -m gpu``, and what its JUnit file reports."""

import sys
import xml.etree.ElementTree as ET
from typing import Any

from tests.gpu.context import Context
from tests.gpu.processes import ROOT, python_environment, run_command

MAX_TEXT = 2000
"""Characters kept of a failure's traceback: its end."""


def run(context: Context) -> list[str]:
    """Run the tests; each that failed is a failure of the part."""
    junit = context.folder / "junit.xml"
    options = ["-m", "gpu", "-v", "--continue-on-collection-errors", "-p", "no:cacheprovider", f"--junitxml={junit}"]
    places = ["-c", str(ROOT / "pyproject.toml"), str(ROOT / "tests")]
    ended = run_command(
        [sys.executable, "-P", "-m", "pytest", *options, *places],
        folder=context.folder,
        name="pytest",
        limit_s=context.left_s,
        environment=python_environment(),
    )
    if not junit.exists():
        context.save({"output_tail": ended.tail})
        return [f"pytest {ended.failure or 'wrote no results'}"]
    result = read_junit(junit.read_text(encoding="utf-8"))
    context.save(result)
    return [f"{test['test']} failed" for test in result["failed"]]


def read_junit(text: str) -> dict[str, Any]:
    """The number of passed tests; the failed ones; those that were skipped, and files without a package, by reason."""
    result: dict[str, Any] = {"passed": 0, "failed": [], "skipped": [], "not_collected": []}
    for case in ET.fromstring(text).iter("testcase"):
        test = ".".join(filter(None, [case.get("classname"), case.get("name")]))
        problem = next((child for child in case if child.tag in ("failure", "error")), None)
        skip = case.find("skipped")
        if problem is not None:
            message = f"{problem.get('message', '')}\n{problem.text or ''}".strip()
            missing = problem.get("message") == "collection failure" and "ModuleNotFoundError" in message
            lines = [line.strip() for line in message.splitlines() if "ModuleNotFoundError" in line]
            entry = {"test": test, "reason": lines[-1] if missing else message[-MAX_TEXT:]}
            result["not_collected" if missing else "failed"].append(entry)
        elif skip is not None:
            result["skipped"].append({"test": test, "reason": skip.get("message", "")})
        else:
            result["passed"] += 1
    return result


def summarise(result: dict[str, Any]) -> list[str]:
    """Lines of the printed summary: the counts, then a line per failure and per reason of a skip."""
    if "passed" not in result:
        return []
    counts = ", ".join(f"{len(result[kind])} {kind}" for kind in ("failed", "skipped"))
    lines = [f"{result['passed']} passed, {counts}"]
    lines += [f"failed: {test['test']}: {test['reason'].splitlines()[0]}" for test in result["failed"]]
    reasons = [test["reason"] for test in result["skipped"]]
    lines += [f"skipped: {reasons.count(reason)}: {reason}" for reason in dict.fromkeys(reasons)]
    lines += [f"not collected: {test['test']}: {test['reason']}" for test in result["not_collected"]]
    return lines
