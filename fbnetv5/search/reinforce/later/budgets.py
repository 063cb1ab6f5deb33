"""The budgets of a later task: those that its options name, or those of the run."""

from pathlib import Path

from export.errors import UserError
from fbnetv5.costs.budgets import TaskBudgets, parse_budgets, some_budgets
from fbnetv5.costs.cost_files import CostFile, open_costs
from fbnetv5.runs.options import Amount, CostBudgets
from fbnetv5.search.reinforce.config import SearchConfig


def budgets_of_task(
    search: SearchConfig,
    run: Path,
    task: str,
    amounts: tuple[Amount | None, Amount | None, Amount | None],
    costs: CostBudgets | None = None,
    memory: Amount | None = None,
) -> tuple[tuple[CostFile, ...], TaskBudgets]:
    """The cost files and the budgets of a later task; without any those of the run.

    Without a resolution that of the run holds.

    Args:
        search: the configuration of the run.
        run: its folder, for the error.
        task: name of the task.
        amounts: maximum multiply-adds, latency and parameters.
        costs: budgets by cost file, or by the name of a cost of the run.
        memory: maximum peak activation memory.

    Raises:
        UserError: the run has no such budgets or resolution, because its tasks differ; or a text cannot be parsed.
    """
    files, limits = open_costs(costs, search.costs, memory=memory)
    texts = some_budgets(*amounts, limits)
    first, *others = search.budgets.values()
    if not texts:
        if any(budgets != first for budgets in others):
            raise UserError(f"the tasks of {run} have different budgets: set that of {task} by --flops or --latency")
        return search.costs, first
    resolution, amount = first[0].resolution, next(iter(texts.values()))
    differ = any(budgets[0].resolution != resolution for budgets in others)
    if differ and not any("@" in text for text in texts.values()):
        raise UserError(f"the tasks of {run} have different resolutions: write the budget as {amount}@224x224")
    return files, parse_budgets(texts, tasks=(task,), resolutions={task: resolution})[task]
