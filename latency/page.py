"""A page to look at beside a latency table: whether to trust it, and where the time goes.

One file that opens anywhere: no script, and nothing is loaded. Plots are inline SVG with a tooltip on every mark, and
every figure that a block's mark shows also stands in the table at the end. What was not measured is said, not drawn.
"""

from collections.abc import Sequence
from html import escape

from latency.figures import (
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
from latency.svg import STYLE
from latency.table import LatencyTable
from latency.verdict import verdict

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
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr)); gap: 28px 40px;
  margin-top: 18px; align-items: start; }
.figures > div { display: grid; gap: 28px; }
.figures > .verdict { display: block; border-left: 4px solid var(--c0); padding: 2px 0 2px 14px; }
.verdict p:first-child { font-size: 18px; font-weight: 600; }
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
    """The page of ``table`` as HTML text.

    Args:
        table: any table, with or without networks and correction.
        facts: of its blocks; one without facts is shown as of another space, and facts without an entry are not shown.
    """
    blocks = Blocks(table, facts)
    title = escape(f"Latency table {table.name}")
    sentences = "".join(f"<p>{escape(sentence)}</p>" for sentence in verdict(table))
    body = [
        f"<header><h1>{title}</h1>{_header(table)}</header>",
        f'<section class="figures"><div class="verdict">{sentences}</div>{_held_out(table)}</section>',
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
        "blocks": len(table.isolated_ms),
        "whole networks": len(table.networks),
        "a call that does nothing": f"{table.overhead_ms:.4f} ms",
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
        return "isolated: blocks timed alone"
    if table.kind == "isolated":
        return "isolated: correcting did not help"
    return f"corrected on {table.correction.fitted_on} networks"


def _protocol(table: LatencyTable) -> str:
    timing = table.timing
    return (
        f"Times are medians over all runs of {timing.repeats} rounds. Each round visited every block or network in "
        f"turn, warmed it up for {timing.warmup_ms:g} ms and timed it for at least {timing.min_ms:g} ms and "
        f"{timing.min_runs} runs. Between visits a yardstick was timed, and all times are given at its usual speed. "
        f"What varied by more than {timing.max_cv:.0%} was visited in {timing.repeats} further rounds."
    )


def _held_out(table: LatencyTable) -> str:
    """The errors on held-out networks; nothing where there are none."""
    if table.correction is None:
        return ""
    found = table.correction.held_out
    judged = {
        "corrected blocks": found.predicted,
        "plain sum of blocks": found.isolated,
        "multiply-adds": found.flops,
    }
    rows = [[name, *errors.texts()] for name, errors in judged.items() if errors is not None]
    rows.append(["own repeats", f"{found.noise:.2%}", "", "", "", ""])
    head = [f"{found.networks} held-out networks", "mean error", "bias", "within 5%", "within 10%", "rank (tau)"]
    return _table(head, rows, {0 if table.kind == "corrected" else 1: "used"})


def _networks_section(table: LatencyTable) -> str:
    if not table.networks:
        return "<section><h2>Whole networks</h2><p>None was measured.</p></section>"
    figures = predicted_against_measured(table) + errors_by_size(table)
    return f'<section><h2>Whole networks</h2><div class="figures">{figures}</div></section>'


def _blocks_section(table: LatencyTable, blocks: Blocks) -> str:
    missing, beside = [], []
    if any(facts is not None and facts.macs for facts in blocks.facts.values()):
        beside.append(time_by_macs(table, blocks))
    else:
        missing.append("No block's multiply-adds are known.")
    if table.correction is not None:
        beside.append(correction_by_time(table, blocks))
    else:
        missing.append("There is no correction to compare with: blocks were timed alone only.")
    said = "".join(f"<p>{escape(sentence)}</p>" for sentence in missing)
    return (
        f"<section><h2>Where the time goes</h2>{_shares(table, blocks)}{said}"
        f'<div class="figures">{block_times(table, blocks)}<div>{"".join(beside)}</div></div></section>'
    )


def _shares(table: LatencyTable, blocks: Blocks) -> str:
    """How the tasks' networks spend their time; nothing where no network was measured."""
    if not table.networks:
        return ""
    by_task = shares_by_task(table, blocks)
    rows = [[task, *(f"{part:.1%}" for part in parts.values())] for task, parts in by_task.items()]
    note = (
        "How the time predicted for all measured networks of a task is spent, by stride of the blocks' output. These "
        "networks were drawn from cheap to dear, not searched: a searched one may spend its time otherwise."
    )
    return f"<p>{note}</p>{_table(['task', *blocks.groups], rows, {})}"


def _blocks_table(table: LatencyTable, blocks: Blocks) -> str:
    """Every block with all figures; unstable ones are marked."""
    head = ["block", "stride", "stage", "multiply-adds", "alone, ms", "p90, ms", "cv", "corrected, ms", "share"]
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
        "alone: median of the block by itself; p90: 90th percentile; cv: robust coefficient of variation; share: of "
        "the time predicted for all measured networks."
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
