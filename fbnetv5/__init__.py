"""Multi-task neural architecture search: one run, a network per task, within a budget of a real device."""

from fbnetv5.integrations.timm import registry

__version__ = "0.1.0"

registry.enable()
