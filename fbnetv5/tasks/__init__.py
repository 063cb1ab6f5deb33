"""The tasks: every concrete subclass of ``Task`` that a module of this folder defines."""

from collections.abc import Iterable, Sequence

from export.discovery import concrete_subclasses
from export.errors import UserError
from fbnetv5.tasks.task import ClassNames, Task


def task_types() -> dict[str, type[Task]]:
    """Every task class by name, in their order."""
    types = concrete_subclasses(__name__, Task)  # type: ignore[type-abstract]
    return {task.name: task for task in sorted(types, key=lambda task: (task.order, task.name))}


def default_tasks() -> tuple[str, ...]:
    """The tasks that commands use by default."""
    return tuple(name for name, task in task_types().items() if task.by_default)


def check_names(names: Iterable[str]) -> None:
    """Raise UserError if a name is not that of a task."""
    types = task_types()
    for name in names:
        if name not in types:
            raise UserError(f"unknown task {name!r}; there are: {', '.join(types)}")


def task_names(tasks: str | Sequence[str] | None) -> tuple[str, ...]:
    """The names of a comma-separated list such as "cls,det", or of a sequence; None is the list of default tasks.

    Raises:
        UserError: a task is unknown, or named twice.
    """
    if tasks is None:
        return default_tasks()
    names = tuple(name.strip() for name in (tasks.split(",") if isinstance(tasks, str) else tasks))
    if not names or len(set(names)) != len(names) or not all(names):
        raise UserError(f"{tasks!r} is not a comma-separated list of different tasks, such as cls,det,seg")
    check_names(names)
    return names


def needed_targets(names: Iterable[str], *, soft: bool = False) -> tuple[str, ...]:
    """The targets that the named tasks learn from, each once.

    Args:
        names: of the tasks.
        soft: whether they learn from soft labels as well.

    Raises:
        UserError: a name is not a task.
    """
    names = tuple(names)
    check_names(names)
    types = task_types()
    targets = [target for name in names for target in types[name].targets]
    targets += [target for name in names if soft and (target := types[name].soft_target) is not None]
    return tuple(dict.fromkeys(targets))


def make_tasks(names: tuple[str, ...], classes: ClassNames) -> dict[str, Task]:
    """The named tasks on a data set with these targets, in the order of the names.

    Args:
        names: of the tasks.
        classes: names of the classes by target of the data set.

    Raises:
        UserError: a name is not a task, or the data lack one of its targets.
    """
    check_names(names)
    types = task_types()
    for name in names:
        if not _has_labels(types[name], classes):
            labelled = {other: kind for other, kind in types.items() if _has_labels(kind, classes)}
            usable = [other for other, kind in labelled.items() if _can_learn(kind, classes)]
            raise UserError(
                f"the data set has no labels for task {name!r}; it has labels for: {', '.join(usable) or 'none'}. "
                "Add labels, or choose tasks with --tasks"
            )
    return {name: types[name](classes) for name in names}


def searched_tasks(names: tuple[str, ...], classes: ClassNames) -> dict[str, Task]:
    """The named tasks for a search, which needs classes to tell apart; arguments as in ``make_tasks``.

    Raises:
        UserError: as ``make_tasks``, or a task has too few classes to learn.
    """
    tasks = make_tasks(names, classes)
    for name, task in tasks.items():
        if not _can_learn(type(task), classes):
            raise UserError(
                f"task {name!r} needs {task.min_classes} classes or more, and the data set has only "
                f"{', '.join(map(repr, classes[task.targets[0]]))}: leave the task out with --tasks"
            )
    return tasks


def _has_labels(task: type[Task], classes: ClassNames) -> bool:
    """Whether a data set has the targets of a task, and names classes if the task has any."""
    return classes.keys() >= set(task.targets) and (not task.min_classes or bool(classes[task.targets[0]]))


def _can_learn(task: type[Task], classes: ClassNames) -> bool:
    """Whether the data set, which has the task's labels, has enough classes to learn."""
    return not task.min_classes or len(classes[task.targets[0]]) >= task.min_classes
