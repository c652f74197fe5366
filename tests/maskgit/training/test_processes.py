"""Several processes, accumulation and kills: the same losses as one process without either.

The processes are real ones that talk through gloo. Dropout is 0 where the number of slices differs
(it is drawn for each slice), and on where it does not.
"""

import multiprocessing
import os
import shutil
import socket
from unittest import mock

import numpy as np
import pytest
import torch

from maskgit.training.loop import Trainer
from tests.maskgit.training.training_doubles import read_log, recorded, tiny_preset, worker

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.maskgit.training.training_doubles"])

# Adam's first steps have the length of the rate whatever the gradient, so where a gradient is near
# 0 rounding decides on the sign. Slices round in another way; a small rate keeps that small.
RATE = 3e-5
GAN = {"adversarial": 0.1, "rate": RATE}
UNEVEN = {"batch": 7, "rate": RATE}
# A revival can put two codes on one spot; which of them is the nearer later on, rounding decides.
# So curves are compared without it, and the revival itself by the codebook it leaves.
REVIVAL = {"revive_every": 2}


def run_in(world, jobs, context=CONTEXT):
    """Run the jobs in `world` processes; returns their exit codes."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    processes = [context.Process(target=worker, args=(r, world, port, jobs)) for r in range(world)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    codes = [process.exitcode for process in processes]
    for process in processes:
        process.kill()
    return codes


def job(kind, folder, preset=None, **arguments):
    log = str(folder / "log")
    return kind, {"run_dir": str(folder), "log": log, **arguments}, preset or {}


def assert_same_curve(found, expected, tolerance):
    assert sorted(found) == sorted(expected)
    for step, values in expected.items():
        for name, value in values.items():
            assert found[step][name] == pytest.approx(value, rel=tolerance, abs=tolerance), (
                f"step {step}: {name}"
            )


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """What two processes did, by name; started once, for starting them takes longest."""
    folder = tmp_path_factory.mktemp("pair")
    jobs = {
        "tokenizer": job("tokenizer", folder / "tokenizer", GAN),
        # 7 images in two slices: the processes get 4 and 3.
        "revival": job("tokenizer", folder / "revival", REVIVAL, stop_at=1, checkpoint_every=1),
        "uneven": job("tokenizer", folder / "uneven", UNEVEN),
        "transformer": job("transformer", folder / "transformer", {"dropout": 0.0, **UNEVEN}),
        "dropout": job("transformer", folder / "dropout"),
        "four": job("transformer", folder / "four", accumulate=2),
        "half": job("transformer", folder / "half", {"dropout": 0.0}, stop_at=6),
        "half-1": job("tokenizer", folder / "half-1", GAN, stop_at=6),
    }
    # The other way round: begun by one process, finished by two.
    for kind, preset in (("tokenizer", GAN), ("transformer", {"dropout": 0.0})):
        begun = folder / f"begun-{kind}"
        recorded(kind, begun, tiny_preset(**preset), stop_at=4)
        jobs[f"begun-{kind}"] = job(kind, begun, preset)
    assert run_in(2, list(jobs.values())) == [0, 0]
    return {name: (folder / name, read_log(folder / name / "log")) for name in jobs}


@pytest.mark.parametrize(
    ("name", "kind", "preset"),
    [
        ("tokenizer", "tokenizer", GAN),
        ("uneven", "tokenizer", UNEVEN),
        ("transformer", "transformer", {"dropout": 0.0, **UNEVEN}),
    ],
)
def test_two_processes_have_the_loss_curve_of_one(pair, tmp_path, name, kind, preset):
    expected, weights, _ = recorded(kind, tmp_path, tiny_preset(**preset))
    folder, found = pair[name]
    assert_same_curve(found, expected, 1e-4)
    saved = torch.load(folder / "checkpoint.pt", weights_only=True)["average"]
    assert all(torch.allclose(saved[k], v, atol=1e-4) for k, v in weights.items())


def test_dead_codes_move_onto_the_same_rows_whoever_holds_them(pair, tmp_path):
    """Two processes, and one with three slices, against the whole batch at once."""
    books = [torch.load(pair["revival"][0] / "checkpoint.pt", weights_only=True)]
    for accumulate in (1, 3):
        folder = tmp_path / str(accumulate)
        options = {"stop_at": 1, "checkpoint_every": 1, "accumulate": accumulate}
        recorded("tokenizer", folder, tiny_preset(**REVIVAL), **options)
        books.append(torch.load(folder / "checkpoint.pt", weights_only=True))
    two, one, three = (b["modules"]["tokenizer"]["quantizer.codebook"] for b in books)
    assert torch.allclose(two, one, atol=1e-6)
    assert torch.allclose(three, one, atol=1e-6)
    assert len(one.unique(dim=0)) > 8, "hardly any rows to choose from: this test saw nothing"


def test_slices_have_their_own_dropout_whoever_takes_them(pair, tmp_path):
    """Two processes; one that accumulates two slices; two with two each against one with four."""
    for name, accumulate in (("dropout", 2), ("four", 4)):
        alone, *_ = recorded("transformer", tmp_path / name, accumulate=accumulate)
        assert_same_curve(pair[name][1], alone, 1e-4)
    two, four = (pair[name][1] for name in ("dropout", "four"))
    apart = max(abs(two[step]["loss"] - four[step]["loss"]) for step in two)
    assert apart > 1e-3, "dropout had no effect, so this test saw nothing"


@pytest.mark.parametrize(
    ("name", "kind", "preset"),
    [("half", "transformer", {"dropout": 0.0}), ("half-1", "tokenizer", GAN)],
)
def test_one_process_goes_on_where_two_stopped(pair, tmp_path, name, kind, preset):
    """In the middle of an epoch: 20 images, steps of 6, resumed at step 6."""
    expected, *_ = recorded(kind, tmp_path / "whole", tiny_preset(**preset))
    after, *_ = recorded(kind, pair[name][0], tiny_preset(**preset))
    assert sorted(after) == [6, 7]
    assert_same_curve(after, {k: expected[k] for k in after}, 1e-4)


@pytest.mark.parametrize(
    ("kind", "preset"), [("tokenizer", GAN), ("transformer", {"dropout": 0.0})]
)
def test_two_processes_go_on_where_one_stopped(pair, tmp_path, kind, preset):
    expected, *_ = recorded(kind, tmp_path, tiny_preset(**preset))
    _, after = pair[f"begun-{kind}"]
    assert sorted(after) == [3, 4, 5, 6, 7]
    assert_same_curve(after, {k: expected[k] for k in after}, 1e-4)


@pytest.mark.parametrize(
    ("kind", "preset"),
    [("tokenizer", GAN | UNEVEN), ("transformer", {"dropout": 0.0, **UNEVEN})],
)
@pytest.mark.parametrize("accumulate", [2, 3, 7])
def test_accumulated_slices_take_the_step_of_the_whole_batch(tmp_path, kind, preset, accumulate):
    preset = tiny_preset(**preset)
    whole, *_ = recorded(kind, tmp_path / "whole", preset, stop_at=3)
    cut, *_ = recorded(kind, tmp_path / "cut", preset, stop_at=3, accumulate=accumulate)
    assert_same_curve(cut, whole, 1e-5)


@pytest.mark.parametrize(("kind", "preset"), [("tokenizer", GAN | REVIVAL), ("transformer", {})])
def test_a_killed_run_goes_on_with_identical_losses(tmp_path, kind, preset):
    expected, weights, _ = recorded(kind, tmp_path / "whole", tiny_preset(**preset))
    cut = tmp_path / "cut"
    assert run_in(1, [job(kind, cut, preset, kill_at=5)]) == [-9]
    before = read_log(cut / "log")
    assert sorted(before) == [0, 1, 2, 3, 4]
    (cut / ".tmp-checkpoint.pt-999-abcd").write_bytes(b"what a kill while writing leaves")
    after, resumed, _ = recorded(kind, cut, tiny_preset(**preset))
    assert sorted(after) == [3, 4, 5, 6, 7]
    assert {**before, **after} == expected
    assert all(torch.equal(resumed[name], value) for name, value in weights.items())
    assert not (cut / ".tmp-checkpoint.pt-999-abcd").exists()


def test_the_curve_is_on_disk_before_the_checkpoint_that_follows_it(tmp_path, monkeypatch):
    """Or a kill between the two would leave a gap: a run that goes on logs later steps only."""
    waiting, written, saved = [], [], []

    class Lazy:
        def __init__(self, folder):
            assert folder == str(tmp_path / "tensorboard")

        def add_scalar(self, name, value, step):
            waiting.append((name, step))

        def flush(self):
            written.extend(waiting)
            waiting.clear()

        close = flush

    monkeypatch.setattr("torch.utils.tensorboard.SummaryWriter", Lazy)
    monkeypatch.setattr(Trainer, "save", lambda _, step: saved.append((step, tuple(written))))
    recorded("transformer", tmp_path)
    assert [step for step, _ in saved] == [3, 6, 8]
    for step, found in saved:
        assert [at for name, at in found if name == "loss"] == list(range(1, step + 1))


def test_recomputed_activations_give_the_same_losses(tmp_path):
    """With dropout on: the second forward must draw what the first drew."""
    for kind in ("tokenizer", "transformer"):
        kept, *_ = recorded(kind, tmp_path / f"{kind}-kept", stop_at=3)
        again, *_ = recorded(
            kind, tmp_path / f"{kind}-again", stop_at=3, checkpoint_activations=True
        )
        assert_same_curve(again, kept, 1e-6)


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="no C++ compiler")
def test_a_compiled_step_is_the_same_step(tmp_path):
    """Without dropout, which a compiled network draws in its own way; masks differ in size."""
    preset = tiny_preset(dropout=0.0, rate=RATE)
    expected, weights, _ = recorded("transformer", tmp_path / "eager", preset)
    found, compiled, _ = recorded("transformer", tmp_path / "compiled", preset, compile=True)
    assert sorted(compiled) == sorted(weights)
    assert_same_curve(found, expected, 1e-4)
    # Goes on without a compiler what was begun with one.
    recorded("transformer", tmp_path / "half", preset, compile=True, stop_at=4, checkpoint_every=4)
    after, *_ = recorded("transformer", tmp_path / "half", preset)
    assert_same_curve(after, {step: expected[step] for step in after}, 1e-4)


@pytest.mark.parametrize("kind", ["tokenizer", "transformer"])
def test_bfloat16_changes_the_losses_little(tmp_path, kind):
    """Autocast on the CPU. The quantiser stays in float32, or 0.01 would be below its grain."""
    preset = {"dropout": 0.0}
    expected, *_ = recorded(kind, tmp_path / "full", tiny_preset(**preset), stop_at=2)
    half = job(kind, tmp_path / "half", preset, stop_at=2, precision="bf16")
    # A process of its own, for oneDNN reads this once: some virtual machines announce AMX and then
    # do not let it be used.
    with mock.patch.dict(os.environ, {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16"}):
        assert run_in(1, [half], multiprocessing.get_context("spawn")) == [0]
    found = read_log(tmp_path / "half" / "log")
    assert found != expected, "bfloat16 was not used"
    for step, values in expected.items():
        assert found[step]["loss"] == pytest.approx(values["loss"], rel=0.03)


def test_more_slices_than_images_are_refused(tmp_path):
    from maskgit.common.errors import UsageError

    with pytest.raises(UsageError, match="--accumulate 7: expected 1 to 6"):
        recorded("transformer", tmp_path, accumulate=7)


def test_slices_share_out_every_batch():
    """No image twice, none left out, whatever the number of slices."""
    batch = np.arange(13)
    for slices in range(1, 14):
        parts = [batch[s::slices] for s in range(slices)]
        assert sorted(np.concatenate(parts)) == batch.tolist()
        assert max(map(len, parts)) - min(map(len, parts)) <= 1
