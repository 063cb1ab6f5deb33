"""``fbnetv5 profile``: the commands of latency tables; without a sub-command it measures a device of this machine.

Each sub-command is one file; they share ``options.py`` and ``tables.py``.
"""

from typing import Any

import typer
from typer.core import TyperGroup

from export.errors import UserError
from fbnetv5.cli.profile.bundle import bundle
from fbnetv5.cli.profile.estimate import estimate
from fbnetv5.cli.profile.import_bundle import import_bundle
from fbnetv5.cli.profile.measure import measure
from fbnetv5.cli.profile.verify import verify

_FORMER_FLAGS = {
    "--verify": "fbnetv5 profile verify TABLE",
    "--bundle": "fbnetv5 profile bundle FOLDER",
    "--import": "fbnetv5 profile import FOLDER",
    "--estimate": "fbnetv5 profile estimate",
}
"""Flags of version 0.1.0, and the sub-commands that replaced them."""


class ProfileGroup(TyperGroup):
    """The group of ``fbnetv5 profile``; its error for a former flag names the sub-command that replaced it."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        for argument in args:
            if replacement := _FORMER_FLAGS.get(argument.partition("=")[0]):
                raise UserError(f"{argument.partition('=')[0]} is a sub-command now: {replacement}")
        return super().parse_args(ctx, args)


profile = typer.Typer(cls=ProfileGroup, invoke_without_command=True, rich_markup_mode=None)
profile.callback()(measure)
profile.command("verify")(verify)
profile.command("bundle")(bundle)
profile.command("import")(import_bundle)
profile.command("estimate")(estimate)
