"""The errors for bad input: the message is the one line a user reads, and the exit code is 2."""


class UsageError(ValueError):
    """Input the user can correct: the message names flag or file, the value, what is accepted."""


class Unavailable(UsageError):
    """Weights or a reference that are not on this machine: numbers that need them fall away."""


def one_line(error: BaseException, limit: int = 160) -> str:
    """A library's error as the end of one of our lines."""
    return " ".join(str(error).split())[:limit] or type(error).__name__
