"""Whether a latency table has all blocks of a search's space, and the options with which ``profile`` measures them."""

from pathlib import Path

from export.errors import UserError
from fbnetv5.costs.constraints import AnyTable
from fbnetv5.costs.tables import block_key, head_key
from fbnetv5.search.nars.config import NarsConfig
from fbnetv5.search.profile_command import options_text
from fbnetv5.tasks.task import Task


def check_complete(config: NarsConfig, table: AnyTable, task: Task) -> None:
    """Raise UserError, with the command to run, if the table lacks a block of the space or a head of the task."""
    space, size = config.space, config.resolution
    keys = {block_key(block, node.stride, size) for node in space.nodes for block in node.candidates}
    keys |= {head_key(task, channels, size) for channels in space.possible_widths(task.paths)}
    if missing := table.missing(sorted(keys)):
        raise UserError(
            f"latency table {config.table} lacks {len(missing)} of {len(keys)} blocks of {space.label} at "
            f"{size[0]}x{size[1]}, first: {missing[0]}. Add them with: "
            f"{table.command}{profile_options(config, Path(str(config.table)).parent)}"
        )


def profile_options(config: NarsConfig, luts: Path) -> str:
    """The options, as text, with which ``fbnetv5 profile`` measures the blocks of a search into a table in ``luts``."""
    return options_text(config.space, config.resolution, [config.task_name], config.data, luts)
