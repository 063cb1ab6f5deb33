"""What the commands print: results on stdout, progress and remarks on stderr."""

import io
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from export.check import Verdict
    from fbnetv5.architecture import Architecture
    from fbnetv5.evaluate import Evaluated
    from fbnetv5.exporting import Exported
    from fbnetv5.search.progress import Progress as SearchProgress
    from fbnetv5.search.run import CostRange
    from fbnetv5.train import Result
    from fbnetv5.training.loop import Trained
    from latency.correction import Report
    from latency.estimate import EstimatedTable
    from latency.on_device import Bundle
    from latency.profile import Plan, Profiled
    from latency.verify import Verified

console = Console(stderr=True)
UNEXPECTED = 70
"""Exit code of an error that is ours, as sysexits.h has it; 1 says that a check failed."""
BROKEN_PIPE = 141
"""128 + SIGPIPE."""


def is_first_process() -> bool:
    """Whether to speak: launchers of several processes number them in RANK."""
    return os.environ.get("RANK", "0") == "0"


def say(line: str) -> None:
    console.print(Text(line), soft_wrap=True)


class OutputClosedError(Exception):
    """Whoever reads stdout has closed it, as ``fbnetv5 doctor | head -1`` does."""


@contextmanager
def safe_streams() -> Iterator[None]:
    """Let no stream end the work: closed ones lead nowhere, and one without our characters gets escapes.

    Raises:
        SystemExit: stdout was closed by its reader; 141, as shells call the end by a broken pipe.
    """
    sys.stdout, sys.stderr = sys.stdout or io.StringIO(), sys.stderr or io.StringIO()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    stdout = sys.stdout
    try:
        try:
            yield
        finally:
            if sys.stdout is not stdout:  # typer replaces it when a pipe breaks under its help
                raise OutputClosedError
            stdout.flush()
    except (OutputClosedError, BrokenPipeError):
        # The interpreter flushes stdout once more at its end; let it do so into nothing.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stdout.fileno())
        raise SystemExit(BROKEN_PIPE) from None


def _write(text: str) -> None:
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise OutputClosedError from None


def print_json(document: dict[str, Any]) -> None:
    """One JSON document on stdout, in ASCII where stdout is not UTF-8."""
    utf_8 = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
    _write(json.dumps(document, indent=2, ensure_ascii=not utf_8, allow_nan=False) + "\n")


def print_line(text: str) -> None:
    """One line of a result, unwrapped, on stdout."""
    _write(text + "\n")


def print_table(columns: list[str], rows: list[list[str]]) -> None:
    """A result as a table on stdout; the columns after the first are right-aligned where they hold numbers."""
    table = Table(box=None, pad_edge=False)
    for number, column in enumerate(columns):
        numeric = bool(rows) and rows[0][number][:1].isdigit()
        table.add_column(Text(column), justify="right" if numeric else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    text = io.StringIO()
    Console(file=text, width=max(120, Console().width)).print(table)
    _write(text.getvalue())


def progress_bar() -> Progress:
    """A progress bar on stderr, with time left."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        console=console,
        disable=not is_first_process(),
    )


def outermost(report: Callable[[str, int, int], None]) -> Callable[[str, int, int], None]:
    """Reports the first stage that is told of and none of its parts."""
    first: str | None = None

    def tell(stage: str, done: int, total: int) -> None:
        nonlocal first
        first = first or stage
        if stage == first:
            report(stage, done, total)

    return tell


def stage_lines(bar: Progress) -> Callable[[str, int, int], None]:
    """Shows each stage of a work on a line of its own: (stage, done, total)."""
    lines: dict[str, TaskID] = {}

    def report(stage: str, done: int, total: int) -> None:
        if stage not in lines:
            lines[stage] = bar.add_task(stage, total=total, note="")
            if not console.is_terminal:
                say(f"{stage}: {total}")
        bar.update(lines[stage], completed=done)

    return report


def search_report(bar: Progress, folder: Path) -> "Callable[[SearchProgress], None]":
    """Shows the step, and each task's loss, expected cost and entropy; without a terminal, in a line now and then."""
    from fbnetv5.cost import format_cost
    from fbnetv5.search.config import SearchConfig
    from fbnetv5.search.run import units

    config = SearchConfig.load(folder)
    unit = units(config)
    line = bar.add_task("search", total=config.total_steps, note="")

    def report(now: "SearchProgress") -> None:
        costs = {task: format_cost(cost, unit[task]) for task, cost in now.expected_cost.items()}
        losses = {task: now.losses.get(task, float("nan")) for task in costs}
        short = ", ".join(f"{task} {losses[task]:.2f} {cost}" for task, cost in costs.items())
        bar.update(line, completed=now.step, description=now.phase, note=short)
        if not console.is_terminal and now.step % 100 == 0:
            tasks = "; ".join(
                f"{task} loss {losses[task]:.3f}, expected cost {cost}, entropy {now.entropy[task]:.3f}"
                for task, cost in costs.items()
            )
            say(f"step {now.step} of {config.total_steps}, {now.phase}: {tasks}")

    return report


def train_report(bar: Progress, folder: Path) -> "Callable[[Trained], None]":
    """Shows the step, the loss and the best score so far; without a terminal, in a line at each measurement."""
    from fbnetv5.training.config import TrainConfig

    config = TrainConfig.load(folder)
    line = bar.add_task(f"train {config.task}", total=config.steps, note="")
    started: list[tuple[float, int]] = []

    def report(now: "Trained") -> None:
        started.append((time.monotonic(), now.step))
        loss = "" if now.loss is None else f"loss {now.loss:.3f}, "
        best = f"held-out score {now.best:.4f} of step {now.best_step}"
        bar.update(line, completed=now.step, note=loss + best)
        if not console.is_terminal and now.score is not None:
            seconds, steps = started[-1][0] - started[0][0], now.step - started[0][1]
            left = f", {(config.steps - now.step) * seconds / steps / 60:.1f} min left" if steps else ""
            say(f"step {now.step} of {config.steps}: {loss}score {now.score:.4f}, best {best}{left}")

    return report


def print_ranges(ranges: "Sequence[CostRange]") -> None:
    from fbnetv5.cost import format_cost

    for found in ranges:
        costs = [format_cost(value, found.unit) for value in (found.cheapest, found.expected, found.dearest)]
        say(f"{found.task}: networks of this space cost {costs[0]} to {costs[2]}, a random one {costs[1]}")


def print_plan(path: Path, lacking: "Plan", *, as_json: bool) -> None:
    if as_json:
        print_json({"table": str(path), "blocks": list(lacking.blocks), "networks": list(lacking.networks)})
        return
    for key in (*lacking.blocks, *lacking.networks):
        print_line(key)
    print_line(f"{path} lacks {len(lacking.blocks)} blocks and {len(lacking.networks)} networks")


def print_profiled(path: Path, page: Path, profiled: "Profiled", keys: list[str], *, as_json: bool) -> None:
    from fbnetv5.profiling import document

    table, correction = profiled.table, profiled.table.correction
    if as_json:
        print_json({"table": str(path), "page": str(page), **document(profiled, keys)})
        return
    print_line(
        f"{path}: {len(keys)} blocks and {len(table.networks)} whole networks, {len(profiled.measured)} measured now; "
        f"a call that does nothing takes {table.overhead_ms:.4f} ms"
    )
    if unstable := table.unstable:
        print_line(f"{len(unstable)} of them varied by more than {table.timing.max_cv:.0%}: is other work running?")
    if correction is None:
        print_line("not corrected, since no whole network was measured: expect the sum of blocks to be off")
    else:
        chosen = "is used" if correction.helps else "does not help and is NOT used: the plain sum is"
        others = correction.held_out.networks
        print_line(f"correction fitted on {correction.fitted_on} networks {chosen}; errors on {others} others:")
        print_report(correction.held_out)
    print_line(f"to look at: {page}")


def print_bundle(folder: Path, bundle: "Bundle", *, as_json: bool) -> None:
    if as_json:
        counts = {f"{kind}s": len(bundle.of_kind(kind)) for kind in ("block", "network")}
        print_json({"bundle": str(folder), "device": bundle.device, "precision": bundle.precision, **counts})
        return
    print_line(f"{folder}: {len(bundle.graphs)} graphs to time on {bundle.device}; its README.md says how")


def print_estimated(path: Path, table: "EstimatedTable", keys: list[str], *, as_json: bool) -> None:
    if as_json:
        values = {"latency_ms": table.values_ms(keys)}
        print_json(
            {"table": str(path), "device": table.device, "precision": table.precision, "kind": table.kind, **values}
        )
        return
    rows = [
        [key, f"{one.latency_ms:.4f} ms {one.kind}", one.bound] for key, one in table.entries.items() if key in keys
    ]
    print_table(["block", "at least", "bound by"], rows)
    print_line(
        f"{path}: {len(rows)} blocks estimated from {table.peak_tflops:g} TFLOPS and {table.bandwidth_gb_s:g} GB/s "
        f"({table.source}); nothing was measured. Search with: --latency BUDGET --table {path}"
    )


def print_verified(path: Path, found: "Verified", *, as_json: bool) -> None:
    if as_json:
        print_json(found.to_json())
        return
    print_line(f"{path} against {found.report.networks} networks measured now, at the table's speed of the machine")
    print_report(found.report)
    print_line(f"the machine now runs at {found.speed:.1%} of its speed then")


def print_report(found: "Report") -> None:
    judged = {"table": found.predicted, "plain sum of blocks": found.isolated, "multiply-adds": found.flops}
    rows = [[name, *errors.texts()] for name, errors in judged.items() if errors is not None]
    print_table(["predicted by", "mean error", "bias", "within 5 %", "within 10 %", "rank (tau)"], rows)
    print_line(f"the networks' own repeats differ by {found.noise:.2%}")


def print_found(folder: Path, found: "dict[str, Architecture]", *, as_json: bool) -> None:
    """The architectures on stdout; on stderr, whatever the form, a warning for each task without a signal."""
    for task, one in found.items():
        if not one.provenance["panel"]["has_signal"]:
            say(
                f"{task}: the search found no signal: what it predicts of networks does not rank "
                f"{one.provenance['panel']['architectures']} others that it ran. Treat the network as a random one of "
                "its budget, or search longer (more steps, more labelled pictures)"
            )
    if as_json:
        print_json({"run": str(folder), "architectures": {task: one.to_json() for task, one in found.items()}})
        return
    rows = [
        [
            task,
            f"{one.macs / 1e6:.1f}M",
            f"{one.params / 1e6:.2f}M",
            one.latency_text,
            f"{one.provenance['score']:.3f} {one.provenance['metric']}",
            f"{one.provenance['panel']['rank_correlation']:.2f}",
            str(folder / f"{task}.json"),
        ]
        for task, one in found.items()
    ]
    print_table(["task", "multiply-adds", "params", "predicted", "held-out score", "rank corr.", "file"], rows)


def print_trained(result: "Result", *, as_json: bool) -> None:
    if as_json:
        print_json(result.to_json())
        return
    metric, file = result.test.metric, result.folder / f"{result.test.task}.json"
    print_line(
        f"{file}: held-out {metric} {result.first:.4f} before, {result.best:.4f} of step {result.best_step}, "
        f"{result.steps} steps done"
    )
    print_evaluated(result.test)


def print_evaluated(found: "Evaluated") -> None:
    height, width = found.size
    print_line(f"{found.task} on {found.pictures} test pictures of {height}x{width}:")
    rows: list[list[str]] = []
    for name, value in found.figures.items():
        parts = value.items() if isinstance(value, dict) else [("", value)]
        rows += [[f"{name} {label}".strip(), "-" if one is None else f"{one:.4f}"] for label, one in parts]
    print_table(["figure", "value"], rows)


def print_exported(exported: "list[Exported]") -> None:
    rows = []
    for one in exported:
        for task, network in one.deliverable.architectures.items():
            found = {rung: metrics[task] for rung, metrics in one.metrics.items()}
            judged = [parity for step in one.compared if step.gated for parity in step.outputs if not parity.ranked]
            worst = max(parity.error for parity in judged)
            rows.append(
                [
                    task,
                    f"{network.macs / 1e6:.1f}M",
                    f"{network.params / 1e6:.2f}M",
                    network.latency_text,
                    f"{one.latency_ms_p50:.2f} ms",
                    f"{one.deliverable.tasks[task].metric_name} @{one.metric_size[0]}x{one.metric_size[1]}",
                    " ".join(f"{rung} {value:.4f}" for rung, value in found.items()),
                    f"{worst:.1e}",
                ]
            )
        if one.kept_float:
            print_line(f"{one.deliverable.name}: left in float by int8: {' '.join(one.kept_float)}")
        if one.deliverable.sharing is not None:
            saved = one.deliverable.sharing
            print_line(
                f"{one.deliverable.name}: {saved.blocks_shared} blocks run once for several tasks, "
                f"{saved.macs_joint / 1e6:.1f}M multiply-adds for {saved.macs_separate / 1e6:.1f}M"
            )
    print_table(["task", "multiply-adds", "params", "predicted", "measured", "metric", "by rung", "parity"], rows)
    for one in exported:
        if one.engine is not None:
            ran = "not run" if one.engine_latency_ms_p50 is None else f"{one.engine_latency_ms_p50:.3f} ms"
            print_line(f"{one.folder / one.engine.file}: {one.engine.runtime} {one.engine.version}, {ran}")


def print_validation(found: dict[str, Any]) -> None:
    words = {True: "passed", False: "FAILED", None: "-"}
    for finding in found["findings"]:
        print_line(f"{finding['what']}: {words[finding['passed']]}: {finding['detail']}")
    for name, times in found["latency_ms"].items():
        print_line(f"{name}: {times['median']:.3f} ms (median), {times['p90']:.3f} ms (p90)")


def print_verdict(verdict: "Verdict") -> None:
    for problem in verdict.problems:
        place = "the file" if problem.node is None else f"node {problem.node} {problem.operator} {problem.name!r}"
        print_line(f"{place}: {problem.code} from the {problem.stage}: {problem.description}")
        if problem.hint:
            print_line(f"  hint: {problem.hint}")
    for remark in verdict.warnings:
        print_line(f"warning: {remark.message}")
        if remark.hint:
            print_line(f"  hint: {remark.hint}")
    if verdict.accepted:
        print_line(f"{verdict.runtime} {verdict.version} takes {verdict.file}: {verdict.nodes} nodes")


def shape_text(shape: list[int] | None) -> str:
    return "" if shape is None else "x".join(str(side) for side in shape)
