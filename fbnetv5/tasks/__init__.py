"""The tasks, found by looking at this folder: every module that defines a subclass of ``Task`` is one."""

import importlib
import pkgutil

from export.errors import UserError
from fbnetv5.data.sample import Classes
from fbnetv5.tasks.task import Task


def task_types() -> dict[str, type[Task]]:
    """Every task class by name, in the order of names."""
    found: dict[str, type[Task]] = {}
    for module_info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{module_info.name}")
        for value in vars(module).values():
            if (
                isinstance(value, type)
                and issubclass(value, Task)
                and value.__module__ == module.__name__
                and value is not Task
            ):
                found[value.name] = value
    return dict(sorted(found.items()))


def check_names(names: tuple[str, ...]) -> None:
    """Raise UserError if a name is not a task's."""
    types = task_types()
    for name in names:
        if name not in types:
            raise UserError(f"unknown task {name!r}; there are: {', '.join(types)}")


def make_tasks(names: tuple[str, ...], classes: Classes) -> dict[str, Task]:
    """The named tasks on these classes, in the order given.

    Raises:
        UserError: a name is not a task, or the classes have none for it.
    """
    check_names(names)
    types = task_types()
    tasks = {name: types[name](classes) for name in names}
    for name, task in tasks.items():
        if not task.labels:
            raise UserError(f"the pictures carry no labels for {name!r}; leave it out of --tasks")
    return tasks
