"""Opens the latency table of a search, and names the options with which ``profile`` measures its blocks."""

from pathlib import Path

from fbnetv5.costs.constraints import AnyTable
from fbnetv5.search.profile_command import options_text
from fbnetv5.search.reinforce.config import SearchConfig
from latency import estimate


def open_table(config: SearchConfig) -> AnyTable | None:
    """The configuration's latency table, if it names one."""
    if config.table is None:
        return None
    return estimate.open_table(Path(config.table), other_machine=config.other_machine_table)


def profile_options(config: SearchConfig, luts: Path) -> str:
    """The options, as text, with which ``fbnetv5 profile`` measures the blocks of a search into a table in ``luts``.

    A profile has one resolution; budgets at several resolutions need a profile for each, and this names the first.
    """
    resolutions = {task: budgets[0].resolution for task, budgets in config.budgets.items()}
    first = next(iter(resolutions.values()))
    tasks = [task for task, resolution in resolutions.items() if resolution == first]
    return options_text(config.space, first, tasks, config.data, luts)
