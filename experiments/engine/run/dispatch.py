"""Which task next: keep a worker on the weights it has loaded, and let all workers end together."""

from collections import defaultdict
from collections.abc import Collection, Iterable

from experiments.engine.cells import Task


class Queue:
    """Tasks waiting, in groups; in a group the dearest first, so that no long one comes last."""

    def __init__(self, tasks: Iterable[Task]):
        self._groups: dict[str, list[Task]] = defaultdict(list)
        for task in tasks:
            self._groups[task.group].append(task)
        for group in self._groups.values():
            group.sort(
                key=lambda task: task.cost
            )  # stable: ties keep the order of the grid, reversed

    def __len__(self) -> int:
        return sum(len(group) for group in self._groups.values())

    def put(self, task: Task) -> None:
        """Put a task back, to be taken after the others of its group."""
        self._groups[task.group].insert(0, task)

    def take(self, group: str | None, others: Collection[str | None]) -> Task:
        """The next task for a worker that last worked on `group` while others work on `others`.

        Its own group first; else the group nobody works on that has most left; else the group with
        most left.
        """
        if group is None or not self._groups.get(group):
            left = [name for name, tasks in self._groups.items() if tasks]
            free = [name for name in left if name not in others]
            group = max(free or left, key=lambda name: sum(t.cost for t in self._groups[name]))
        return self._groups[group].pop()
