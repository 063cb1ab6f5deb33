import sys
import time
from pathlib import Path

from tests.gpu.processes import python_environment, run_command


def run(code: str, folder: Path, limit_s: float = 20.0, *, own_group: bool = False) -> str | None:
    """Run Python code and return the reason of its failure."""
    command = [sys.executable, "-S", "-c", code]
    return run_command(
        command, folder=folder, name="code", limit_s=limit_s, environment=python_environment(), own_group=own_group
    ).failure


def test_the_output_is_kept_and_a_failure_has_its_last_line(tmp_path: Path) -> None:
    assert run("print(1)", tmp_path) is None
    assert (tmp_path / "code.log").read_text() == "1\n"
    assert run("raise SystemExit('no disk')", tmp_path) == "exit code 1: no disk"


def test_a_command_ends_at_its_limit(tmp_path: Path) -> None:
    started = time.monotonic()
    assert run("import time; time.sleep(30)", tmp_path, 0.5) == "did not end within 0.5 s"
    assert time.monotonic() - started < 10


def test_the_processes_of_a_command_end_with_it(tmp_path: Path) -> None:
    child = (
        "import subprocess, sys; p = subprocess.Popen([sys.executable, '-S', '-c', 'input()'], stdin=subprocess.PIPE)"
    )
    assert run(f"{child}; open('pid', 'w').write(str(p.pid)); import time; time.sleep(30)", tmp_path, 3, own_group=True)
    pid = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and runs(pid):
        time.sleep(0.05)
    assert not runs(pid)


def runs(pid: int) -> bool:
    """Whether the process exists and is no zombie, which a container without an init process may keep."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state.rpartition(")")[2].split()[0] != "Z"
