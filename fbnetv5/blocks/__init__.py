"""Blocks: frozen specifications with a key, and the torch modules that they build."""
