"""Progress on stderr: a live line in a terminal, plain lines now and then in a log."""

import time
from typing import Any, TextIO

from rich.console import Console
from rich.live import Live
from rich.text import Text

from experiments.engine.cells import Task
from experiments.engine.run.execute import Reply

EVERY = 10.0  # seconds between two plain lines


def clock(seconds: float) -> str:
    """1:02:03 or 2:03."""
    whole = max(0, round(seconds))
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"


class Progress:
    """Cells done, cached and failed, images per second, time left.

    Args:
        stream: where to write; None for silence.
        unit: what `Task.size` counts.
    """

    def __init__(self, stream: TextIO | None, unit: str = "images"):
        self.stream, self.unit = stream, unit
        self._total, self._cost = 0, 0.0
        self._live: Any = None
        self._done = self._cached = self._failed = 0
        self._size, self._computed, self._settled = 0, 0.0, 0.0
        self._began = self._printed = time.monotonic()
        self._shown: tuple[int, ...] = ()

    def begin(self, total: int, cached: int, cost: float) -> None:
        """Start the clock: `cached` of `total` cells were there before, the rest costs `cost`."""
        self._began = self._printed = time.monotonic()
        self._total, self._cached, self._cost = total, cached, cost
        if self.stream is not None and self.stream.isatty():
            self._live = Live(console=Console(file=self.stream), auto_refresh=False, transient=True)
            self._live.start()
        self.refresh(force=True)

    def task(self, task: Task, reply: Reply) -> None:
        """Count one task."""
        self._settled += task.cost
        if reply.kind == "done":
            self._done += 1
            self._size += task.size
            self._computed += task.cost
        elif reply.kind == "cached":
            self._cached += 1
        else:
            self._failed += 1

    def line(self) -> str:
        """The state in one line."""
        passed = time.monotonic() - self._began
        ready = self._done + self._cached + self._failed
        text = f"{ready}/{self._total} cells: {self._done} done, {self._cached} cached"
        text += f", {self._failed} failed"
        if self._computed:
            left = (self._cost - self._settled) * passed / self._computed
            text += f" | {self._size / passed:.1f} {self.unit}/s | {clock(left)} left"
        return f"{text} | {clock(passed)} passed"

    def refresh(self, force: bool = False) -> None:
        """Show the state: at once in a terminal, at most every ten seconds elsewhere."""
        if self._live is not None:
            self._live.update(Text(self.line()), refresh=True)
        elif self.stream is not None and (force or time.monotonic() - self._printed >= EVERY):
            self._print()

    def _print(self) -> None:
        self._printed = time.monotonic()
        self._shown = (self._done, self._cached, self._failed)
        print(self.line(), file=self.stream, flush=True)

    def say(self, message: str) -> None:
        """A line that stays."""
        if self._live is not None:
            self._live.console.print(message, markup=False, highlight=False, soft_wrap=True)
        elif self.stream is not None:
            print(message, file=self.stream, flush=True)

    def end(self) -> None:
        """Leave the last state as a plain line."""
        if self._live is not None:
            self._live.stop()
            self._live = None
        if self.stream is not None and self._shown != (self._done, self._cached, self._failed):
            self._print()
