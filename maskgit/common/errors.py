"""The errors that a command line turns into one line on stderr and an exit code.

Every package raises these and no copies of them, so one `except` catches the errors of all.
"""

import signal


class UsageError(ValueError):
    """Input that the user can correct; the exit code is 2.

    The message is one line that names the flag or file, the value, and what is accepted.
    """


class Unavailable(UsageError):
    """Weights or a reference that are not on this machine: the numbers that need them are missing
    from the result, with this message as the reason."""


class RunError(RuntimeError):
    """A run that cannot go on because of the machine, not because of what the user asked for."""


def one_line(error: BaseException, limit: int = 160) -> str:
    """A library's error as the end of one of our lines."""
    return " ".join(str(error).split())[:limit] or type(error).__name__


class Interrupted(BaseException):
    """A signal asked the process to end. It is no Exception, so that nothing takes it for a
    failure of the work in hand."""

    def __init__(self, number: int):
        super().__init__(f"ended by {signal.Signals(number).name}")
        self.exit_code = 128 + number  # what shells expect
