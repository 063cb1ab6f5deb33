import errno
import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from export import locks as module
from export.errors import UserError
from export.locks import locked, try_lock, wait_for_lock

HOLD = "import sys; from export.locks import try_lock; file = open(sys.argv[1], 'w'); print(try_lock(file), flush=True)"


def test_a_lock_of_another_process_ends_with_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    command = [sys.executable, "-c", f"{HOLD}; sys.stdin.read()", str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "True\n"
        with pytest.raises(UserError, match="wait for it"), locked(path, "wait for it"):
            pass
        with path.open("w") as file:
            waiting = threading.Thread(target=wait_for_lock, args=(file,))
            waiting.start()
            waiting.join(timeout=0.3)
            assert waiting.is_alive()
            holder.kill()
            waiting.join(timeout=30)
            assert not waiting.is_alive()
    with locked(path, "wait for it"):
        pass


def test_a_lock_ends_with_its_context_though_a_forked_process_has_the_file_open(tmp_path: Path) -> None:
    """Processes that read images are forked, and may end a little later than the run."""
    with locked(tmp_path / "lock", "wait for it"):
        child = os.fork()
        if not child:
            time.sleep(60)
            os._exit(0)
    try:
        with locked(tmp_path / "lock", "wait for it"):
            pass
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK])
def test_a_file_system_without_locks_gives_each_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with locked(tmp_path / "lock", "wait for it"):
        pass


def test_another_error_of_a_lock_is_not_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with pytest.raises(OSError, match="Input/output error"), locked(tmp_path / "lock", "wait for it"):
        pass


def test_windows_locks_a_byte_behind_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lock of Windows, with a simulated library: a locked byte cannot be read by others."""
    places: list[tuple[int, int, int]] = []

    def locking(descriptor: int, mode: int, count: int) -> None:
        if places:
            raise PermissionError
        places.append((file.tell(), mode, count))

    monkeypatch.setattr(module, "sys", SimpleNamespace(platform="win32"))
    monkeypatch.setitem(sys.modules, "msvcrt", SimpleNamespace(locking=locking, LK_NBLCK=2))
    with (tmp_path / "lock").open("w+") as file:
        assert try_lock(file)
        assert places == [(1 << 30, 2, 1)]
        assert file.tell() == 0
        assert not try_lock(file)


def test_modules_that_lock_are_imported_without_the_library_of_unix() -> None:
    code = (
        "import sys; sys.modules['fcntl'] = None; import latency.bundle, latency.on_device, latency.profile; "
        "import fbnetv5.labeling.command, fbnetv5.labeling.teachers.weights, fbnetv5.data.shard_writer"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
