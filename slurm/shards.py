"""Cells packed into shards of equal estimated cost: one task of a job array each."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from slurm.profile import Profile


@dataclass(frozen=True)
class Work:
    """One cell, as far as packing looks at it.

    cost: in forwards of one image. group: cells of a group share what is dear to load. blocks:
    parts that as many shards can make at a time.
    """

    key: str
    cost: float
    group: str = ""
    blocks: int = 1


@dataclass(frozen=True)
class Shard:
    """The keys of one array task, cheapest first, and their cost together. A cell that several
    shards share is in each of them."""

    keys: tuple[str, ...]
    cost: float


def number_of_shards(work: Sequence[Work], profile: Profile) -> int:
    """How many: of `shard_hours` each where the profile knows the time of a forward, else four for
    each task that may run at a time; never more than blocks, nor than `max_array`."""
    if profile.seconds_per_forward is not None:
        hours = sum(item.cost for item in work) * profile.seconds_per_forward / 3600
        wanted = -(-hours // profile.shard_hours)
    else:
        wanted = 4.0 * profile.array_parallelism
    return int(max(1, min(wanted, sum(item.blocks for item in work), profile.max_array)))


def pack(work: Sequence[Work], count: int) -> list[Shard]:
    """`count` shards whose costs differ as little as a greedy rule gets them.

    The dearest cell first, each to the shard with the least so far (longest processing time; at
    most 4/3 of the best possible largest shard, Graham 1969). Equal costs keep cells of a group
    together. No shard is empty when there are at least `count` cells. A cell of several blocks that
    costs more than a shard's part is shared by several.
    """
    part = sum(item.cost for item in work) / count
    pieces: list[Work] = []
    for item in work:
        shared = max(1, min(item.blocks, count, math.ceil(item.cost / part))) if part else 1
        pieces += [replace(item, cost=item.cost / shared)] * shared
    loads = [(0.0, number) for number in range(count)]
    heapq.heapify(loads)
    members: list[list[Work]] = [[] for _ in range(count)]
    for item in sorted(pieces, key=lambda item: (-item.cost, item.group, item.key)):
        load, number = heapq.heappop(loads)
        members[number].append(item)
        heapq.heappush(loads, (load + item.cost, number))
    return [
        Shard(
            tuple(
                dict.fromkeys(
                    item.key for item in sorted(shard, key=lambda item: (item.cost, item.group))
                )
            ),
            sum(item.cost for item in shard),
        )
        for shard in members
        if shard
    ]
