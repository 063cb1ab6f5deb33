"""Whether pip resolves fbnetv5 with each of its extras alone, in an empty environment; nothing is installed.

    python tools/check_extras.py            # all extras
    python tools/check_extras.py tensorrt   # some

One line per extra: how many packages it needs, or why pip finds no solution. Exit code 1 if an extra has none. pip
reads the metadata of every package, and downloads packages whose index has no metadata files.
"""

import json
import re
import subprocess
import sys
import tempfile
import tomllib
import venv
from pathlib import Path

ROOT = Path(__file__).parent.parent
REASON = re.compile(r"^(ERROR|error):|^\s*The installation of .* failed")
"""Lines of pip's report that say why; the second is of NVIDIA's packages, which download themselves from NVIDIA."""


def extras() -> list[str]:
    """Names of the extras in ``pyproject.toml``."""
    document = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return list(document["project"]["optional-dependencies"])


def resolve(extra: str) -> str | None:
    """Resolve one extra in an empty environment; return why pip finds no solution, or None."""
    with tempfile.TemporaryDirectory() as folder:
        environment = Path(folder)
        venv.create(environment / "venv")
        python = next((environment / "venv").glob("[bS][ic]*/python*"))
        report = environment / "report.json"
        command = [sys.executable, "-m", "pip", "--python", str(python), "install", "--dry-run", "--ignore-installed"]
        command += ["--quiet", "--report", str(report), f"{ROOT}[{extra}]"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            lines = [line.strip() for line in done.stderr.splitlines() if REASON.search(line)]
            return "; ".join(dict.fromkeys(lines)) or done.stderr.strip()
        count = len(json.loads(report.read_text(encoding="utf-8"))["install"])
        sys.stdout.write(f"{extra}: {count} packages\n")
        return None


def main() -> int:
    """Resolve the extras that the command line names, or all; return the exit code."""
    failed = False
    for extra in sys.argv[1:] or extras():
        if (reason := resolve(extra)) is not None:
            sys.stdout.write(f"{extra}: {reason}\n")
            failed = True
        sys.stdout.flush()
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
