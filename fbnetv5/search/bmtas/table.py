"""Opens the latency table of a search, checks that it has all blocks, and names the ``profile`` that measures them."""

from collections.abc import Mapping
from pathlib import Path

from export.errors import UserError
from fbnetv5.costs.constraints import AnyTable
from fbnetv5.costs.tables import block_key, head_key
from fbnetv5.search.bmtas.config import BranchConfig
from fbnetv5.search.profile_command import options_text
from fbnetv5.tasks.task import Task
from latency import estimate


def open_table(config: BranchConfig, tasks: Mapping[str, Task], *, needed: bool) -> AnyTable | None:
    """The latency table of the configuration; None without one, or where it cannot be used and is not needed.

    Raises:
        UserError: the table is needed, and is missing, damaged, of another machine, or lacks blocks.
    """
    if config.table is None:
        return None
    try:
        table = estimate.open_table(Path(config.table), other_machine=config.other_machine_table)
        _check_complete(config, table, tasks)
    except UserError:
        if needed:
            raise
        return None
    return table


def _check_complete(config: BranchConfig, table: AnyTable, tasks: Mapping[str, Task]) -> None:
    """Raise UserError, with the command to run, if the table lacks a block of the encoder or the head of a task."""
    space, size = config.space, config.budget.resolution
    keys = {block_key(block, node.stride, size) for node in space.nodes for block in node.candidates}
    keys |= {head_key(task, space.channels(task.paths), size) for task in tasks.values()}
    if not (missing := table.missing(sorted(keys))):
        return
    size_text = "x".join(map(str, size))
    raise UserError(
        f"latency table {config.table} lacks {len(missing)} of {len(keys)} blocks of {space.label} at {size_text}, "
        f"first: {missing[0]}. Add them with: {table.command}{profile_options(config, Path(str(config.table)).parent)}"
    )


def profile_options(config: BranchConfig, luts: Path) -> str:
    """The options, as text, with which ``fbnetv5 profile`` measures the blocks of a search into a table in ``luts``."""
    return options_text(config.space, config.budget.resolution, config.tasks, config.data, luts)
