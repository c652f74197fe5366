"""Ctrl-C and kill: end cleanly, with the exit code that shells expect (128 + the signal)."""

import os
import signal
from types import FrameType

_SIGNALS = [signal.SIGINT, signal.SIGTERM] + ([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])


class Interrupted(BaseException):
    """A signal asked us to end. Not an Exception, so that no cell takes it for a failure."""

    def __init__(self, number: int):
        super().__init__(f"ended by {signal.Signals(number).name}")
        self.exit_code = 128 + number


class Stopper:
    """Turns SIGINT, SIGTERM and SIGHUP into `Interrupted`, in a `with` block, in the main thread.

    While `held` is true a signal only wakes `pipe` and waits for `check()`, so that a loop that
    owns processes is never torn at a random line. A second signal does not disturb the cleaning up.
    """

    def __init__(self) -> None:
        self.number = 0
        self.held = False
        self.pipe, self._wake = os.pipe()

    def __enter__(self) -> "Stopper":
        self._before = {number: signal.signal(number, self._on_signal) for number in _SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        os.close(self.pipe)
        os.close(self._wake)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.number:
            return
        self.number = number
        if not self.held:
            raise Interrupted(number)
        os.write(self._wake, b"!")

    def check(self) -> None:
        """Raise `Interrupted` if a signal came while `held`."""
        if self.number:
            raise Interrupted(self.number)
