"""The HTML report beside a latency table: how accurate the table is, and where the time goes.

One file that opens anywhere and loads nothing. Plots have a tooltip on every mark, and every number in a block's
tooltip is also in the table at the end. For missing measurements there is a sentence instead of a plot.
"""

from collections.abc import Sequence

from latency.page.content import Facts, Figures, Item, Notes, Page, Section, Table, Text
from latency.page.render import render as render_page
from latency.plots import (
    BlockFacts,
    Blocks,
    block_times,
    correction_by_time,
    errors_by_size,
    predicted_against_measured,
    shares,
    shares_by_task,
    stages_text,
    time_by_macs,
)
from latency.summary import summary
from latency.table import LatencyTable

__all__ = ["BlockFacts", "make_page", "render"]

LIMITS = (
    "The times hold for this machine in its state during the profile: another machine, driver, runtime, clock or "
    "thread count has other times.",
    "The networks were drawn from min to max cost, not searched. A searched network may be predicted better or worse.",
    "A sum of blocks does not show what a whole network adds: reading images, copies to a device, other processes.",
)


def render(table: LatencyTable, facts: Sequence[BlockFacts]) -> str:
    """Render the report of ``table`` as HTML text, see ``make_page``."""
    return render_page(make_page(table, facts))


def make_page(table: LatencyTable, facts: Sequence[BlockFacts]) -> Page:
    """The contents of the report of ``table``.

    Args:
        table: any measured table, with or without networks and correction.
        facts: properties of its blocks; a block without facts is shown as of another space, and facts of a block
            without an entry are not shown.
    """
    blocks = Blocks(table, facts)
    return Page(
        title=f"Latency table {table.name}",
        kicker="fbnetv5 profile",
        lead=[Text(paragraphs=summary(table), style="summary"), *_held_out(table), _header(table), _protocol(table)],
        sections=[
            Section(name="networks", title="Whole networks", items=_networks(table)),
            Section(name="blocks", title="Where the time goes", items=_blocks(table, blocks)),
            Section(name="all-blocks", title="All blocks", items=_blocks_table(table, blocks)),
            Section(name="limits", title="What these figures do not show", items=[Notes(items=LIMITS)]),
        ],
        footer="Written by fbnetv5 profile. This file loads nothing.",
    )


def _header(table: LatencyTable) -> Facts:
    facts = {
        "device": table.device,
        "precision": table.precision,
        "batch": table.batch,
        "threads": table.threads,
        **table.fingerprint,
        "blocks": len(table.standalone_ms),
        "whole networks": len(table.networks),
        "overhead of a call": f"{table.overhead_ms:.4f} ms",
        "values": _values(table),
        **({"last measured": table.conditions[-1]["date"]} if table.conditions else {}),
    }
    return Facts(values={name.replace("_", " "): str(value) for name, value in facts.items()})


def _values(table: LatencyTable) -> str:
    if table.correction is None:
        return "standalone block times"
    if table.values_kind == "standalone":
        return "standalone block times: the correction did not help"
    return f"corrected on {table.correction.fitted_on} networks"


def _protocol(table: LatencyTable) -> Text:
    timing = table.timing
    text = (
        f"Times are medians over all runs of {timing.repetitions} repetitions. Each repetition timed every block or "
        f"network in turn: a warm-up of {timing.warmup_ms:g} ms, then at least {timing.min_ms:g} ms and "
        f"{timing.min_runs} runs. A reference workload was timed in between, and all times are scaled to its typical "
        f"time. Blocks and networks that varied by more than {timing.max_cv:.0%} were timed in {timing.repetitions} "
        "further repetitions."
    )
    return Text(paragraphs=[text], style="soft")


def _held_out(table: LatencyTable) -> list[Item]:
    """The errors on held-out networks; nothing without a correction."""
    if table.correction is None:
        return []
    report = table.correction.held_out
    predictors = {
        "corrected blocks": report.predicted,
        "plain sum of blocks": report.standalone,
        "multiply-adds": report.flops,
    }
    rows = [[name, *errors.texts()] for name, errors in predictors.items() if errors is not None]
    rows.append(["measurement noise", f"{report.noise:.2%}", "", "", "", ""])
    head = [f"{report.networks} held-out networks", "mean error", "bias", "within 5%", "within 10%", "rank (tau)"]
    return [Table(head=head, rows=rows, marked={0 if table.values_kind == "corrected" else 1: "used"})]


def _networks(table: LatencyTable) -> list[Item]:
    if not table.networks:
        return [Text(paragraphs=["No whole network was measured."])]
    return [Figures(items=[predicted_against_measured(table), errors_by_size(table)])]


def _blocks(table: LatencyTable, blocks: Blocks) -> list[Item]:
    missing, plots = [], []
    if any(facts is not None and facts.macs for facts in blocks.facts.values()):
        plots.append(time_by_macs(table, blocks))
    else:
        missing.append("The multiply-adds of the blocks are unknown.")
    if table.correction is not None:
        plots.append(correction_by_time(table, blocks))
    else:
        missing.append("There is no correction to compare with: only standalone blocks were timed.")
    remarks = [Text(paragraphs=missing, style="soft")] if missing else []
    return [*_shares(table, blocks), *remarks, Figures(items=plots), block_times(table, blocks)]


def _shares(table: LatencyTable, blocks: Blocks) -> list[Item]:
    """The shares of the blocks in the time of each task's networks; nothing where no network was measured."""
    if not table.networks:
        return []
    by_task = shares_by_task(table, blocks)
    rows = [[task, *(f"{part:.1%}" for part in parts.values())] for task, parts in by_task.items()]
    note = (
        "Shares of the predicted time of all measured networks of a task, by stride of the blocks' output. These "
        "networks were drawn from min to max cost, not searched: a searched network may have other shares."
    )
    return [Text(paragraphs=[note]), Table(head=["task", *blocks.groups], rows=rows)]


def _blocks_table(table: LatencyTable, blocks: Blocks) -> list[Item]:
    """Every block with all its numbers; unstable blocks are marked."""
    head = ["block", "stride", "stage", "multiply-adds", "standalone, ms", "p90, ms", "cv", "corrected, ms", "share"]
    part = shares(table, list(table.networks.values())) if table.networks else {}
    rows, marked = [], {}
    for number, (key, facts) in enumerate(blocks.facts.items()):
        entry = table.entries[key]
        unstable = key in table.unstable
        if unstable:
            marked[number] = "unstable"
        rows.append(
            [
                key,
                ", ".join(map(str, facts.strides)) if facts else "-",
                stages_text(facts) or "head" if facts else "-",
                f"{facts.macs:,}" if facts else "-",
                f"{entry.latency_ms_median:.4f}",
                f"{entry.latency_ms_p90:.4f}",
                f"{entry.cv:.1%}" + (" (varies)" if unstable else ""),
                f"{table.correction.latency_ms[key]:.4f}" if table.correction else "-",
                f"{part[key]:.1%}" if key in part else "-",
            ]
        )
    note = (
        "standalone: median of the block on its own; p90: 90th percentile; cv: robust coefficient of variation; "
        "share: of the predicted time of all measured networks."
    )
    return [Text(paragraphs=[note], style="soft"), Table(head=head, rows=rows, marked=marked)]
