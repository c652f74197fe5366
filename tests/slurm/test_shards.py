"""Packing: every cell once, equal cost, never more shards than the array takes."""

import math
from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from slurm.profile import Profile
from slurm.shards import Work, number_of_shards, pack

costs = st.lists(st.floats(0.1, 1e6), min_size=1, max_size=80)


@given(costs, st.integers(1, 20))
def test_every_cell_is_in_one_shard_and_none_is_empty(costs, count):
    work = [Work(str(i), cost) for i, cost in enumerate(costs)]
    shards = pack(work, count)
    keys = [key for shard in shards for key in shard.keys]
    assert sorted(keys) == sorted(item.key for item in work)
    assert len(shards) == min(count, len(work))


@given(costs, st.integers(1, 20))
def test_no_shard_exceeds_the_mean_by_more_than_one_cell(costs, count):
    shards = pack([Work(str(i), cost) for i, cost in enumerate(costs)], count)
    assert max(s.cost for s in shards) <= sum(costs) / count + max(costs) * (1 + 1e-9)


@given(costs, st.integers(1, 20))
def test_the_cheapest_comes_first(costs, count):
    cost = {str(i): c for i, c in enumerate(costs)}
    for shard in pack([Work(k, c) for k, c in cost.items()], count):
        values = [cost[key] for key in shard.keys]
        assert values == sorted(values)


def test_the_papers_grid_fits_an_array():
    # 7 schedules x 57 values of T x 3 seeds are more than SLURM's default MaxArraySize of 1001.
    grid = product(range(7), range(4, 61), range(3))
    work = [Work(f"{s}/{t}/{n}", 100 * (t + 4), str(s)) for s, t, n in grid]
    assert len(work) == 1197
    assert number_of_shards(work, Profile("x", array_parallelism=1000)) == 1000
    shards = pack(work, number_of_shards(work, Profile("x", array_parallelism=16)))
    assert len(shards) == 64
    assert max(s.cost for s in shards) <= 1.05 * min(s.cost for s in shards)


def test_the_time_of_a_forward_sets_the_number():
    work = [Work(str(i), 3600.0) for i in range(100)]
    assert number_of_shards(work, Profile("x", seconds_per_forward=0.1, shard_hours=1.0)) == 10
    assert number_of_shards(work, Profile("x", seconds_per_forward=100.0)) == 100


def test_a_large_cell_is_shared_by_as_many_shards_as_it_fills():
    alone = [Work("a", 50.0, blocks=50)]
    assert number_of_shards(alone, Profile("x", array_parallelism=1)) == 4
    shards = pack(alone, 4)
    assert [shard.keys for shard in shards] == [("a",)] * 4
    assert [shard.cost for shard in shards] == [12.5] * 4
    # Small cells beside it fill the shards that it leaves free; what has one block is never shared.
    shards = pack([Work("a", 50.0, blocks=50), *(Work(str(i), 5.0) for i in range(10))], 4)
    assert [len([s for s in shards if key in s.keys]) for key in ("a", "0", "9")] == [2, 1, 1]
    assert max(shard.cost for shard in shards) == 25.0
    assert len(pack([Work("b", 9.0, blocks=2)], 4)) == 2


@given(st.lists(st.tuples(st.floats(0.1, 1e6), st.integers(1, 9)), min_size=1), st.integers(1, 20))
def test_shared_cells_keep_their_cost_and_no_shard_has_one_twice(items, count):
    work = [Work(str(i), cost, blocks=blocks) for i, (cost, blocks) in enumerate(items)]
    shards = pack(work, count)
    assert math.isclose(sum(shard.cost for shard in shards), sum(item.cost for item in work))
    for item in work:
        assert 1 <= sum(item.key in shard.keys for shard in shards) <= item.blocks
    assert all(len(set(shard.keys)) == len(shard.keys) > 0 for shard in shards)
