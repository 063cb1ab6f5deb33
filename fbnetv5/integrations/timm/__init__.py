"""Searched networks as timm models; importing this package registers the name ``fbnetv5`` with timm."""

from fbnetv5.integrations.timm.registry import enable, register_architecture

__all__ = ["register_architecture"]

enable()
