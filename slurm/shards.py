"""Cells packed into shards of equal estimated cost: one task of a job array each."""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

from slurm.profile import Profile


@dataclass(frozen=True)
class Work:
    """One cell, as far as packing looks at it. cost is in forwards of one image."""

    key: str
    cost: float
    group: str = ""  # cells of a group share what is dear to load


@dataclass(frozen=True)
class Shard:
    """The keys of one array task, cheapest first, and their cost together."""

    keys: tuple[str, ...]
    cost: float


def number_of_shards(work: Sequence[Work], profile: Profile) -> int:
    """How many: of `shard_hours` each where the profile knows the time of a forward, else four for
    each task that may run at a time; never more than cells, nor than `max_array`."""
    if profile.seconds_per_forward is not None:
        hours = sum(item.cost for item in work) * profile.seconds_per_forward / 3600
        wanted = -(-hours // profile.shard_hours)
    else:
        wanted = 4.0 * profile.array_parallelism
    return int(max(1, min(wanted, len(work), profile.max_array)))


def pack(work: Sequence[Work], count: int) -> list[Shard]:
    """`count` shards whose costs differ as little as a greedy rule gets them.

    The dearest cell first, each to the shard with the least so far (longest processing time; at
    most 4/3 of the best possible largest shard, Graham 1969). Equal costs keep cells of a group
    together. No shard is empty when there are at least `count` cells.
    """
    loads = [(0.0, number) for number in range(count)]
    heapq.heapify(loads)
    members: list[list[Work]] = [[] for _ in range(count)]
    for item in sorted(work, key=lambda item: (-item.cost, item.group, item.key)):
        load, number = heapq.heappop(loads)
        members[number].append(item)
        heapq.heappush(loads, (load + item.cost, number))
    return [
        Shard(
            tuple(item.key for item in sorted(shard, key=lambda item: (item.cost, item.group))),
            sum(item.cost for item in shard),
        )
        for shard in members
        if shard
    ]
