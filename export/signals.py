"""Ends of a process by signal that run its cleanup, such as the release of a locked GPU clock."""

import signal


def interrupt_on_signals() -> None:
    """Make SIGTERM, and SIGHUP of a terminal that closes, raise KeyboardInterrupt as Ctrl+C does.

    A process that ignores SIGHUP, because nohup started it, goes on ignoring it. Windows has no SIGHUP.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) == signal.SIG_DFL:
        signal.signal(signal.SIGHUP, signal.default_int_handler)
