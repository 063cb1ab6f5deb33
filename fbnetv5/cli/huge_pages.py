"""Memory of trainings on a CPU in huge pages.

Every step of a training allocates its tensors anew. In pages of 4 KB instead of 2 MB a search's step takes about a
tenth longer (docs/lab-notes.md). Most Linux systems give huge pages to programs that ask for them; glibc asks if a
variable of the environment says so when the process starts. The other commands run without it, because they time
networks, which will be deployed without it.
"""

import os
import sys
from contextlib import suppress
from pathlib import Path

COMMANDS = frozenset({"search", "branch", "nars", "train"})
"""Commands that train."""
PROGRAM = "fbnetv5"
VARIABLE, VALUE = "GLIBC_TUNABLES", "glibc.malloc.hugetlb=1"
KERNEL_SETTING = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def restart_in_huge_pages() -> None:
    """Replace this process by one that runs the same command in huge pages, if it is one that trains.

    Nothing happens if the variable is set, where the kernel or the C library has no such setting, or if this process
    was not started as ``fbnetv5`` with these arguments: a test, or another program, may call the command line.
    """
    command = sys.argv[1:]
    if not command or command[0] not in COMMANDS or sys.orig_argv[-len(command) :] != command:
        return
    if PROGRAM not in (Path(word).name for word in sys.orig_argv[: -len(command)]):
        return
    if sys.executable and VARIABLE not in os.environ and are_given_on_request(KERNEL_SETTING):
        os.environ[VARIABLE] = VALUE
        with suppress(OSError):  # a sandbox may refuse it, and then the training is only slower
            os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])


def are_given_on_request(setting: Path) -> bool:
    """Whether the kernel's setting is "madvise"; glibc before 2.35 and other C libraries ignore the variable."""
    try:
        return "[madvise]" in setting.read_text()
    except OSError:
        return False
