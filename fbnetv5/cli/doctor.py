"""``fbnetv5 doctor``: reports what this machine can profile, build and run."""

from typing import TYPE_CHECKING

from fbnetv5.cli.console import print_json, print_line
from fbnetv5.cli.options import Json

if TYPE_CHECKING:
    from fbnetv5.api import Diagnosis


def doctor(json: Json = False) -> None:
    """Report what this machine can profile, build and run.

    For each part that is missing or broken, the report has a command or an instruction that fixes it.
    """
    from fbnetv5 import api

    diagnosis = api.doctor()
    if json:
        print_json(diagnosis.to_json())
    else:
        print_diagnosis(diagnosis)


def print_diagnosis(diagnosis: "Diagnosis") -> None:
    """Print the state of every part with its fix, then what the machine can do."""
    for finding in diagnosis.findings:
        print_line(f"{finding.part}: {finding.status}: {finding.detail}")
        if finding.fix:
            print_line(f"  fix: {finding.fix}")
    for ability in diagnosis.abilities:
        print_line(f"{'can' if ability.works else 'cannot'} {ability.name}: {ability.detail}")
