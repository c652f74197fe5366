"""The benchmarks' own arithmetic: what a row says follows from what was timed."""

import statistics
from dataclasses import replace

import pytest
import torch

from benchmarks import grid, precision, rates, sampling, training, work
from benchmarks.sampling import Case
from maskgit.presets import load_preset

ONE = Case(steps=2, images=2, repeats=2, threads=1)


@pytest.fixture
def quick_rates(monkeypatch):
    """Each product is measured for a moment only."""
    monkeypatch.setattr(rates, "SECONDS", 0.001)
    monkeypatch.setattr(rates, "COPY_MIB", 1)
    monkeypatch.setattr(rates, "SQUARE", {"cpu": 64, "cuda": 64})
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("sampler", ["maskgit", "autoregressive"])
def test_a_row_of_sampling_follows_from_its_seconds(quick_rates, sampler):
    row = sampling.measure(replace(ONE, sampler=sampler))
    seconds = statistics.median(row["seconds"])
    assert row["images_per_second"] * seconds == pytest.approx(2, rel=0.01)
    assert row["tokens_per_second"] * seconds == pytest.approx(2 * 64, rel=0.01)
    assert row["gflops"] * seconds == pytest.approx(row["gflop"], rel=0.01)
    matmul = max(row["rates"]["products_gflops"].values())
    assert row["rates"]["matmul_gflops"] == matmul
    assert row["share_of_matmul_rate"] * matmul == pytest.approx(row["gflops"], rel=0.01)
    assert row["rates"]["rounds"] == 3
    # The last layer's and the head's rows are fewer, never more.
    assert row["forwards"] == (4 if sampler == "maskgit" else 128)
    if sampler == "maskgit":
        assert row["gflop"] < row["gflop_full"]


def test_pixels_are_work_too(quick_rates):
    tokens, pixels = (sampling.measure(replace(ONE, pixels=p)) for p in (False, True))
    more = pixels["gflop"] - tokens["gflop"]
    # One image of the embedded decoder, with the counter on the decoder itself.
    assert more == pytest.approx(2 * work.decoder_flops(load_preset("embedded")) / 1e9, rel=1e-4)
    assert more > 0


def test_the_random_network_gives_spread_out_logits():
    model = sampling.build_transformer("embedded", "cpu")
    logits = model(torch.full((1, 65), model.config.mask_id))
    assert torch.isfinite(logits).all()
    assert logits.std() > 0.01


def test_labels_are_distinct_or_one():
    distinct = sampling.labels_of(Case(images=10), 10)
    assert len(set(distinct.tolist())) == 10
    assert sampling.labels_of(Case(images=4, classes="one"), 10).tolist() == [0] * 4


def test_cases_are_every_combination_and_jax_is_float32_only():
    words = "--T 8,12 --images 4 --precision float32,bfloat16 --backend torch,jax"
    words += " --mode eager,compiled --pixels --baseline"
    flags = sampling.parser().parse_args(words.split())
    cases = sampling.cases_of(flags)
    names = [case.name for case in cases]
    assert len(names) == len(set(names))
    torch_cases = [c for c in cases if c.backend == "torch" and c.sampler == "maskgit"]
    assert len(torch_cases) == 2 * 2 * 2 * 2  # T, precision, mode, pixels
    jax_cases = [c for c in cases if c.backend == "jax"]
    assert {(c.steps, c.precision, c.pixels) for c in jax_cases} == {
        (t, "float32", p) for t in (8, 12) for p in (False, True)
    }
    assert [(c.precision, c.mode) for c in cases if c.sampler != "maskgit"] == [
        (precision, mode) for precision in ("float32", "bfloat16") for mode in ("eager", "compiled")
    ]


def sampling_row(**more):
    row = {
        "name": "row",
        "backend": "torch",
        "mode": "eager",
        "pixels": False,
        "classes": "distinct",
        "device": "cpu",
        "size": "imagenet256",
        "steps": 8,
        "images": 4,
        "precision": "float32",
        "sampler": "maskgit",
        "threads": 2,
        "share_of_matmul_rate": 0.81,
        "images_per_second": 30.0,
    }
    return {**row, **more}


def test_targets_of_sampling():
    rows = [sampling_row(), sampling_row(name="jax", backend="jax"), sampling_row(classes="one")]
    assert sampling.targets(rows) == ["row, share of the matmul rate: 0.81 (at least 0.8: met)"]
    baseline = sampling_row(name="base", sampler="autoregressive", steps=1, images_per_second=1.0)
    said = sampling.targets([sampling_row(), baseline])
    assert said[1] == "row beside base: 30 times the speed (the target is a GPU's)"
    on_gpu = [{**row, "device": "cuda"} for row in (sampling_row(precision="bfloat16"), baseline)]
    assert sampling.targets(on_gpu[:1]) == [
        "row, share of the matmul rate: 0.81 (at least 0.6: met)"
    ]
    same = [on_gpu[0], {**on_gpu[1], "precision": "bfloat16"}]
    assert sampling.targets(same)[1] == "row beside base, times the speed: 30 (at least 30: met)"


@pytest.mark.parametrize("stage", training.STAGES)
def test_a_training_row_is_of_a_real_step(quick_rates, stage):
    row = training.measure(training.Case(stage, batch=4, repeats=2, threads=1))
    seconds = statistics.median(row["seconds"])
    assert row["images_per_second"] * seconds == pytest.approx(4, rel=0.01)
    assert row["gflops"] == pytest.approx(4 * row["gflop_per_image"] / seconds, rel=0.01)


def test_a_training_step_moves_the_weights(tmp_path):
    stage = training.build_stage(training.Case("transformer", batch=4), tmp_path)
    before = [value.detach().clone() for value in stage.model.parameters()]
    stage.step(0)
    after = stage.model.parameters()
    moved = [not torch.equal(a, b) for a, b in zip(before, after, strict=True)]
    assert sum(moved) / len(moved) > 0.9


def test_training_takes_three_times_a_forward():
    """Backward has two products for each of the forward's."""
    preset = load_preset("embedded")
    config = preset.transformer_config
    # The sequence has no mask, and its head is for the codes.
    causal = training.flops_of("autoregressive", preset)
    rows = config.num_tokens
    shorter = replace(config, num_tokens=rows - 1)
    assert causal == pytest.approx(3 * work.forward_flops(shorter, 1, rows), rel=0.03)


def test_the_same_weights_in_float32_twice_change_nothing(monkeypatch):
    """With float32 in place of bfloat16 every token is equal and FID does not move."""
    monkeypatch.setattr(torch, "bfloat16", torch.float32)
    row = precision.measure(precision.Case(samples=20, steps=2, seeds=1))
    assert row["equal_tokens"] == [1.0]
    assert row["fid"]["float32"] == row["fid"]["bfloat16"]
    assert row["fid_difference"] == 0.0
    assert precision.COLUMNS["equal tokens"](row) == "100.00 %"


def test_command_lines_are_found():
    found = grid.command_lines()
    assert {"maskgit", "eval", "experiments.ablate_schedule", "slurm.status"} <= set(found)
    assert len(found) == len(set(found))


def test_trivial_cells_go_through_the_engine():
    row = grid.trivial_row(5, 0)
    assert row["cells"] == 5
    assert row["cells_per_second"] == pytest.approx(5 / row["seconds"], rel=0.1)
    assert row["cached_cells_per_second"] > row["cells_per_second"]


def test_targets_of_the_grid():
    rows = [
        {"name": "overhead", "overhead_percent": 6.0, "metrics_percent": 4.0},
        {"name": "first image, x", "seconds": 3.0},
        {"name": "--help of a", "seconds": 0.2},
        {"name": "--help of b", "seconds": 1.2},
        {"name": "399 cells, T 4..60, 256 samples", "minutes": 20.0},
    ]
    assert grid.targets(rows) == [
        "overhead, %: 6 (at most 5: missed)",
        "first image, x, s: 3 (at most 10: met)",
        "399 cells, T 4..60, 256 samples, min: 20 (at most 30: met)",
        "the slowest --help of b, s: 1.2 (at most 1: missed)",
    ]


def test_a_part_of_a_grid_estimates_the_whole_unless_it_was_begun_before(monkeypatch, tmp_path):
    (name, words), ran = next(iter(grid.PART.items())), []
    monkeypatch.setattr(grid.subprocess, "run", lambda command, **more: ran.append(command))
    monkeypatch.setattr(grid, "seconds_of", lambda function: (function(), 300.0)[1])
    row = grid.full_row(name, words, tmp_path)
    assert row["minutes_of_399_estimated"] == 57.0  # 5 minutes, 57 of the T instead of 5
    assert ran[0][2:-1] == [*words, "--out"]
    assert grid.targets([row]) == [
        "399 cells, estimated from 35 of 399 cells, 256 samples, min: 57 (at most 30: missed)"
    ]
    (tmp_path / ran[0][-1]).mkdir()
    again = grid.full_row(name, words, tmp_path)
    assert again["name"].endswith("(continued)")
    assert grid.targets([again]) == []
