"""Searched networks as timm models."""
