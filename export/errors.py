"""The exceptions that mean "you can fix this": the command line prints them in one line, without a traceback.

They live in the lowest package, so that all three share one set of exit codes.
"""


class UserError(Exception):
    """Wrong usage or bad input: the message names the thing, its place and the way out. Exit code 2."""

    exit_code = 2


class VerificationError(UserError):
    """The work was done and a check on it failed (parity, a metric gate). Exit code 1."""

    exit_code = 1


class UnavailableError(UserError):
    """The device or runtime asked for is not on this machine. Exit code 3."""

    exit_code = 3
