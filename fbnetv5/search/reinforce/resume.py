"""Continues an interrupted search or later task: ``fbnetv5.api.resume_search``, for ``fbnetv5 search --resume``."""

from collections.abc import Callable
from typing import Any

from export.files import AnyPath
from export.progress import Progress, silent
from fbnetv5.runs.config import read_config
from fbnetv5.runs.options import without_link
from fbnetv5.search.reinforce.command import SearchResult, Started, finish_search
from fbnetv5.search.reinforce.config import SearchConfig
from fbnetv5.search.reinforce.later.config import LaterConfig
from fbnetv5.search.reinforce.later.prepare import prepare_later
from fbnetv5.search.reinforce.later.run import run_later
from fbnetv5.search.reinforce.prepare import prepare


def resume_search(
    run: AnyPath,
    *,
    started: Started = silent,
    report: Callable[[Any], None] = silent,
    progress: Progress = silent,
) -> SearchResult:
    """Continue an interrupted search, or ``add_task``, from its folder; on one CPU process it ends with the same bytes.

    Examples:
        >>> api.resume_search("runs/latest")

    Args:
        run: the run folder of the search, or the folder of the later task, which has all settings.
        started: called with the run folder and its opened configuration before the first step.
        report: called with the state of the search after every step.
        progress: called with (stage, done, total) while finalists are compared at the end.

    Raises:
        UserError: the folder is of another method, or damaged.
        VerificationError: a loss is not finite.
    """
    folder = without_link(run)
    if read_config(folder)["kind"] != LaterConfig.kind:
        return finish_search(folder, prepare(SearchConfig.load(folder)), started, report, progress)
    later = prepare_later(LaterConfig.load(folder))
    started(folder, later)
    return SearchResult(run=folder, architectures=run_later(folder, later, report, progress))
