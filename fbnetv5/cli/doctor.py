"""``fbnetv5 doctor``: reports what this machine can profile, build and run."""

from fbnetv5.cli.console import print_json, print_line
from fbnetv5.cli.options import Json


def doctor(json: Json = False) -> None:
    """Report what this machine can profile, build and run, and how to fix the rest."""
    from fbnetv5.deploy.doctor import diagnose

    diagnosis = diagnose()
    if json:
        print_json(diagnosis.to_json())
        return
    for finding in diagnosis.findings:
        print_line(f"{finding.part}: {finding.status}: {finding.detail}")
        if finding.fix:
            print_line(f"  fix: {finding.fix}")
    for ability in diagnosis.abilities:
        print_line(f"can {ability.name}: {ability.detail}")
