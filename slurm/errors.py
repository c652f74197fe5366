"""The error for bad input: its message is the one line a user reads, and the exit code is 2."""


class UsageError(ValueError):
    """Input the user can correct: the message names flag or file, the value, what is accepted."""
