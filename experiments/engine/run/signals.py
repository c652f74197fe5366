"""Ctrl-C and kill: end cleanly, with the exit code that shells expect (128 + the signal)."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from maskgit.common.errors import Interrupted

_SIGNALS = [signal.SIGINT, signal.SIGTERM] + ([signal.SIGHUP] if hasattr(signal, "SIGHUP") else [])


def _heeded() -> list[int]:
    return [number for number in _SIGNALS if signal.getsignal(number) != signal.SIG_IGN]


class Stopper:
    """Turns SIGINT, SIGTERM and SIGHUP into `Interrupted`, in a `with` block, in the main thread.

    A signal that is ignored, as SIGHUP is under nohup, stays ignored.
    While `held` is true a signal only wakes `pipe` and waits for `check()`, so that a loop that
    owns processes is never torn at a random line. A second signal does not disturb the cleaning up.
    """

    def __init__(self) -> None:
        self.number = 0
        self.held = False
        self.pipe, self._wake = os.pipe()

    def __enter__(self) -> "Stopper":
        self._before = {number: signal.signal(number, self._on_signal) for number in _heeded()}
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


@contextmanager
def undisturbed() -> Iterator[None]:
    """Let a signal wait until the block has ended: for what must be done whole once it is begun.

    In other threads than the main one, where Python runs no handlers, nothing is to be held back.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    before = {number: signal.getsignal(number) for number in _heeded()}
    try:
        for number in before:
            signal.signal(number, lambda number, frame: came.append(number))
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])
