"""Multi-task neural architecture search: one run, a network per task, within a budget of a real device."""

__version__ = "0.1.0"
"""The only place of the version: ``pyproject.toml`` reads it from here."""
