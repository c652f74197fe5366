"""Errors of the command lines in `experiments/`: one line for the user, no traceback."""


class UsageError(ValueError):
    """A request that cannot be met. The text names flag or file, value and what is accepted."""


class RunError(RuntimeError):
    """The run cannot go on (not the user's request but the machine). One line."""
