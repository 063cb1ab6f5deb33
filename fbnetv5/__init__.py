"""Multi-task neural architecture search: one run, a network per task, within a budget of a real device."""

from fbnetv5 import timm_registry

__version__ = "0.1.0"

timm_registry.enable()
