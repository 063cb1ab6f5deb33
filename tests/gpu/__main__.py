"""``python -m tests.gpu``: tests and measures, on one GPU, everything of this project that needs a GPU.

Every part runs in a process of its own with a share of the time, so that a crash, a hang or a missing package is a
finding and does not end the rest. The result is ``FOLDER/report.json``, written again after every part, and a summary
on stdout; ``docs/gpu.md`` describes both. Importing this package needs the standard library only. POSIX only.

Exit codes: 0 every part that ran passed; 1 a part failed; 2 wrong usage; 3 there is no NVIDIA GPU on this machine.
"""

import argparse
import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from tests.gpu.parts import PARTS, Part, limits_s, missing_packages
from tests.gpu.processes import ROOT, python_environment, run_command
from tests.gpu.report import PartReport, Report

MIN_LIMIT_S = 5.0
"""A part is skipped if less time is left."""
GRACE_S = 5.0
"""A part plans to end this long before it is killed, so that its result is written."""
NO_GPU = 3
"""The project's exit code for a device that is not on this machine."""


def main(arguments: list[str] | None = None, parts: tuple[Part, ...] = PARTS) -> int:
    """Run the parts, print the summary and return the exit code."""
    options = parse(arguments, parts)
    selected = [part for part in parts if part.name in options.only]
    output = options.output.resolve()
    date = datetime.now(UTC).isoformat(timespec="seconds")
    gpus, reason = find_gpus() if options.device == "cuda" else ((), None)
    report = Report(device=options.device, minutes=options.minutes, date=date, commit=commit(), gpus=gpus)
    print("plan:")
    for part in selected:
        print(f"  {part.name}: {part.purpose}")
    if reason is not None:
        print(f"{reason}, so all parts are skipped; rehearse them with: python -m tests.gpu --device cpu")
        report.parts = [PartReport(part=part, status="skipped", reason=reason) for part in selected]
    else:
        run_parts(selected, report, output)
    report.write(output / "report.json")
    print(report.summary())
    print(f"report: {output / 'report.json'}")
    return NO_GPU if reason is not None else int(any(part.status == "failed" for part in report.parts))


def parse(arguments: list[str] | None, parts: tuple[Part, ...]) -> argparse.Namespace:
    """The options; ``only`` becomes a set of names of parts."""
    parser = argparse.ArgumentParser(prog="python -m tests.gpu", description="Test and measure what needs a GPU.")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu: rehearse the parts in small")
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "gpu", help="folder of the report")
    parser.add_argument("--only", default=None, metavar="PART[,PART]", help="run these parts only")
    parser.add_argument("--minutes", type=float, default=8.0, help="time for all parts together (default: 8)")
    options = parser.parse_args(arguments)
    names = [part.name for part in parts]
    options.only = set(names if options.only is None else options.only.split(","))
    if unknown := sorted(options.only.difference(names)):
        parser.error(f"no part {', '.join(unknown)}; the parts are {', '.join(names)}")
    if not options.minutes > 0:
        parser.error("--minutes must be above 0")
    return options


def find_gpus() -> tuple[tuple[str, ...], str | None]:
    """Names of the NVIDIA GPUs; and if there is none, the reason."""
    from export import cuda
    from export.errors import UserError

    try:
        gpus = cuda.find_gpus()
    except UserError as error:
        return (), str(error)
    return tuple(gpu.name for gpu in gpus), None if gpus else "there is no NVIDIA GPU on this machine"


def commit() -> str | None:
    """The checked-out commit with "+" if files differ from it; None without git or outside of a repository."""
    git = shutil.which("git")
    if git is None:
        return None
    texts = [
        subprocess.run([git, *command], cwd=ROOT, capture_output=True, text=True, check=False)
        for command in (("rev-parse", "HEAD"), ("status", "--porcelain"))
    ]
    return None if any(text.returncode for text in texts) else texts[0].stdout.strip() + "+" * bool(texts[1].stdout)


def run_parts(parts: list[Part], report: Report, output: Path) -> None:
    """Run the parts in order and add each to the report, which is written after every part."""
    started = time.monotonic()
    for part, end_s in zip(parts, limits_s(parts, report.minutes * 60), strict=True):
        limit_s = end_s - (time.monotonic() - started)
        print(f"{part.name}: at most {max(0.0, limit_s):.0f} s ...", flush=True)
        report.parts.append(run_part(part, output / part.name, report.device, limit_s))
        report.write(output / "report.json")


def run_part(part: Part, folder: Path, device: str, limit_s: float) -> PartReport:
    """Run a part in a process of its own, which is killed with its children after ``limit_s`` seconds."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if missing := missing_packages(part.packages):
        return PartReport(part=part, status="skipped", reason=f"not installed: {', '.join(missing)}")
    if limit_s < MIN_LIMIT_S:
        return PartReport(part=part, status="skipped", reason="the time is used up")
    arguments = [part.module, str(folder), device, str(limit_s - min(GRACE_S, limit_s / 4))]
    ended = run_command(
        [sys.executable, "-P", "-m", "tests.gpu.worker", *arguments],
        folder=folder,
        name="part",
        limit_s=limit_s,
        environment=python_environment(),
        own_group=True,
    )
    return PartReport.of(part, folder, ended)


if __name__ == "__main__":
    raise SystemExit(main())
