"""Errors that the user can fix: the command line prints them in one line, without a traceback.

They are in the lowest package, so that all three packages share one set of exit codes.
"""


class UserError(Exception):
    """Wrong usage or bad input: the message names the problem, its place and the remedy. Exit code 2."""

    exit_code = 2


class VerificationError(UserError):
    """The work was done and a check of the result failed (parity, a metric gate). Exit code 1."""

    exit_code = 1


class UnavailableError(UserError):
    """The requested device or runtime is not available on this machine. Exit code 3."""

    exit_code = 3
