"""Finds the classes that the modules of a package define, so that one new file adds a task or a space."""

import importlib
import pkgutil
from inspect import isabstract
from typing import TypeVar

T = TypeVar("T")


def concrete_subclasses(package: str, base: type[T]) -> list[type[T]]:
    """Every class with no abstract method left that a module of the package defines and that derives from ``base``."""
    folder = importlib.import_module(package).__path__
    modules = [importlib.import_module(f"{package}.{info.name}") for info in pkgutil.iter_modules(folder)]
    return [
        value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, base)
        and value.__module__ == module.__name__
        and not isabstract(value)
    ]
