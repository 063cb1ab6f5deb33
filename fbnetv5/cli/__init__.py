"""The command line: one file per command."""

from fbnetv5.cli.entry import app, main

__all__ = ["app", "main"]
