"""The HTML report beside a latency table: how accurate the table is, and where the time goes.

One file that opens anywhere: it has no script and loads nothing. Plots are inline SVG with a tooltip on every mark, and
every number in a block's tooltip is also in the table at the end. For missing measurements there is a sentence instead
of a plot.
"""

from collections.abc import Sequence
from html import escape

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
from latency.svg import STYLE
from latency.table import LatencyTable

__all__ = ["BlockFacts", "render"]

_STYLE = """
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 24px 20px 48px; max-width: 1180px; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { margin: 0 0 4px; font-size: clamp(20px, 5vw, 26px); overflow-wrap: anywhere; }
h2 { margin: 40px 0 10px; font-size: 20px; }
h3 { margin: 0; font-size: 15px; }
p { margin: 0 0 10px; max-width: 78ch; overflow-wrap: anywhere; text-wrap: pretty; }
.soft { color: var(--soft); }
dl { display: flex; flex-wrap: wrap; gap: 8px 28px; margin: 16px 0; }
dt { color: var(--soft); font-size: 13px; }
dd { margin: 0; overflow-wrap: anywhere; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr)); gap: 28px 40px;
  margin-top: 18px; align-items: start; }
.plots > div { display: grid; gap: 28px; }
.plots > .summary { display: block; border-left: 4px solid var(--c0); padding: 2px 0 2px 14px; }
.summary p:first-child { font-size: 18px; font-weight: 600; }
figure { margin: 0; max-width: 560px; min-width: 0; }
figcaption p { margin: 2px 0 8px; color: var(--soft); font-size: 13px; }
.legend { display: flex; flex-wrap: wrap; gap: 2px 14px; margin: 0 0 6px; padding: 0; list-style: none;
  font-size: 13px; }
.wide { overflow-x: auto; margin-bottom: 20px; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; }
th, td { padding: 4px 0 4px 16px; text-align: right; white-space: nowrap; border-bottom: 1px solid var(--grid); }
th:first-child { padding-left: 0; text-align: left; }
thead th { color: var(--soft); font-weight: 500; white-space: normal; vertical-align: bottom; }
tbody th { font-weight: 400; }
.used > * { font-weight: 600; }
.unstable > * { color: var(--c1); }
"""


def render(table: LatencyTable, facts: Sequence[BlockFacts]) -> str:
    """Render the report of ``table`` as HTML text.

    Args:
        table: any measured table, with or without networks and correction.
        facts: properties of its blocks; a block without facts is shown as of another space, and facts of a block
            without an entry are not shown.
    """
    blocks = Blocks(table, facts)
    title = escape(f"Latency table {table.name}")
    sentences = "".join(f"<p>{escape(sentence)}</p>" for sentence in summary(table))
    body = [
        f"<header><h1>{title}</h1>{_header(table)}</header>",
        f'<section class="plots"><div class="summary">{sentences}</div>{_held_out(table)}</section>',
        _networks_section(table),
        _blocks_section(table, blocks),
        f"<section><h2>All blocks</h2>{_blocks_table(table, blocks)}</section>",
    ]
    return (
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"/><title>{title}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1"/>'
        f'<meta name="color-scheme" content="light dark"/><style>{STYLE}{_STYLE}</style></head>\n'
        f"<body>{chr(10).join(body)}</body></html>\n"
    )


def _header(table: LatencyTable) -> str:
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
    items = "".join(
        f"<div><dt>{escape(name.replace('_', ' '))}</dt><dd>{escape(str(value))}</dd></div>"
        for name, value in facts.items()
    )
    return f'<dl>{items}</dl><p class="soft">{escape(_protocol(table))}</p>'


def _values(table: LatencyTable) -> str:
    if table.correction is None:
        return "standalone block times"
    if table.values_kind == "standalone":
        return "standalone block times: the correction did not help"
    return f"corrected on {table.correction.fitted_on} networks"


def _protocol(table: LatencyTable) -> str:
    timing = table.timing
    return (
        f"Times are medians over all runs of {timing.repetitions} repetitions. Each repetition timed every block or "
        f"network in turn: a warm-up of {timing.warmup_ms:g} ms, then at least {timing.min_ms:g} ms and "
        f"{timing.min_runs} runs. A reference workload was timed in between, and all times are scaled to its typical "
        f"time. Blocks and networks that varied by more than {timing.max_cv:.0%} were timed in {timing.repetitions} "
        "further repetitions."
    )


def _held_out(table: LatencyTable) -> str:
    """The errors on held-out networks; empty without a correction."""
    if table.correction is None:
        return ""
    report = table.correction.held_out
    predictors = {
        "corrected blocks": report.predicted,
        "plain sum of blocks": report.standalone,
        "multiply-adds": report.flops,
    }
    rows = [[name, *errors.texts()] for name, errors in predictors.items() if errors is not None]
    rows.append(["measurement noise", f"{report.noise:.2%}", "", "", "", ""])
    head = [f"{report.networks} held-out networks", "mean error", "bias", "within 5%", "within 10%", "rank (tau)"]
    return _table(head, rows, {0 if table.values_kind == "corrected" else 1: "used"})


def _networks_section(table: LatencyTable) -> str:
    if not table.networks:
        return "<section><h2>Whole networks</h2><p>No whole network was measured.</p></section>"
    plots = predicted_against_measured(table) + errors_by_size(table)
    return f'<section><h2>Whole networks</h2><div class="plots">{plots}</div></section>'


def _blocks_section(table: LatencyTable, blocks: Blocks) -> str:
    missing, plots = [], []
    if any(facts is not None and facts.macs for facts in blocks.facts.values()):
        plots.append(time_by_macs(table, blocks))
    else:
        missing.append("The multiply-adds of the blocks are unknown.")
    if table.correction is not None:
        plots.append(correction_by_time(table, blocks))
    else:
        missing.append("There is no correction to compare with: only standalone blocks were timed.")
    remarks = "".join(f"<p>{escape(sentence)}</p>" for sentence in missing)
    return (
        f"<section><h2>Where the time goes</h2>{_shares(table, blocks)}{remarks}"
        f'<div class="plots">{block_times(table, blocks)}<div>{"".join(plots)}</div></div></section>'
    )


def _shares(table: LatencyTable, blocks: Blocks) -> str:
    """The shares of the blocks in the time of each task's networks; empty where no network was measured."""
    if not table.networks:
        return ""
    by_task = shares_by_task(table, blocks)
    rows = [[task, *(f"{part:.1%}" for part in parts.values())] for task, parts in by_task.items()]
    note = (
        "Shares of the predicted time of all measured networks of a task, by stride of the blocks' output. These "
        "networks were drawn from min to max cost, not searched: a searched network may have other shares."
    )
    return f"<p>{note}</p>{_table(['task', *blocks.groups], rows, {})}"


def _blocks_table(table: LatencyTable, blocks: Blocks) -> str:
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
    return f'<p class="soft">{note}</p>{_table(head, rows, marked)}'


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], classes: dict[int, str]) -> str:
    """An HTML table whose first column names the rows; ``classes`` by the number of the row."""
    top = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    lines = []
    for number, (name, *cells) in enumerate(rows):
        kind = f' class="{classes[number]}"' if number in classes else ""
        values = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        lines.append(f'<tr{kind}><th scope="row">{escape(name)}</th>{values}</tr>')
    return f'<div class="wide"><table><thead><tr>{top}</tr></thead><tbody>{"".join(lines)}</tbody></table></div>'
