"""Spaces: what a search can choose from."""
