"""Several networks in one step: each is the network of a separate run."""

from dataclasses import replace

import pytest
import torch
from accelerate import Accelerator

from maskgit.checkpoints import load_transformer, read_card
from maskgit.common.errors import UsageError
from maskgit.model.config import TransformerConfig
from maskgit.model.transformer import Transformer
from maskgit.presets import PAPER_SCHEDULES
from maskgit.training import commands
from maskgit.training.joint import JointStage, LossesAtOnce, LossesInTurn, Stack
from maskgit.training.loop import Trainer
from maskgit.training.settings import RunOptions
from maskgit.training.stage2 import MaskedLoss, TransformerStage
from maskgit.training.tokens import save_tokens
from tests.maskgit.training.training_doubles import run_options, tiny_preset, tokens


def run(kind, folder, preset, **more):
    """The values of every step, the averaged weights, the results and the stage of a run."""
    names = {"schedules", "schedule", "min_mask_ratio"}
    options = run_options(folder, **{k: v for k, v in more.items() if k not in names})
    settings = {k: v for k, v in more.items() if k in names}
    stage = kind(preset, tokens(), tokens(10), None, Accelerator(cpu=True), options, **settings)
    values, inner = {}, stage.step

    def step(number):
        scalars = inner(number)
        values[number] = {k: float(v) for k, v in scalars.items()}
        return scalars

    stage.step = step
    trainer = Trainer(stage, preset.transformer_training, options, {})
    results = trainer.fit()
    return values, trainer.average.values, results, stage


class AtOnce(JointStage):
    """The way of a GPU, on a CPU."""

    in_turn = False


@pytest.mark.parametrize(
    ("kind", "dropout", "within"), [(JointStage, 0.1, 1e-6), (AtOnce, 0.0, 1e-5)]
)
def test_each_network_is_that_of_a_separate_run(tmp_path, kind, dropout, within):
    """Losses, norms of the gradients, averaged weights and validation; in turn with dropout too."""
    preset = tiny_preset(dropout=dropout)
    preset = replace(
        preset, transformer_training=replace(preset.transformer_training, clip_norm=0.5)
    )
    values, weights, results, _ = run(
        kind, tmp_path / "joint", preset, schedules=PAPER_SCHEDULES, min_mask_ratio=0.1
    )
    nlls = set()
    for number, name in enumerate(PAPER_SCHEDULES):
        alone, average, expected, _ = run(
            TransformerStage, tmp_path / name, preset, schedule=name, min_mask_ratio=0.1
        )
        for step, scalars in alone.items():
            assert scalars["gradient_norm"] > 0.5, "nothing was clipped, so this test saw less"
            for key, value in scalars.items():
                assert values[step][f"{key}/{name}"] == pytest.approx(value, rel=within)
        for key, value in average.items():
            assert torch.allclose(weights[key][number], value, atol=1e-4), key
        for key, value in expected.items():
            assert results[f"{key}/{name}"] == pytest.approx(value, rel=within)
        nlls.add(expected["validation_nll"])
    assert len(nlls) == len(PAPER_SCHEDULES)


def problem(dropout=0.0):
    """A stack of three different networks, and labels, tokens, ranks and counts."""
    torch.manual_seed(0)
    config = TransformerConfig(11, 3, 6, width=8, layers=2, heads=2, mlp=16, dropout=dropout)
    stack = Stack(config, 3)
    for parameter in stack.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    ranks = torch.rand(5, 6).argsort(1)
    inputs = torch.randint(0, 3, (5,)), torch.randint(0, 11, (5, 6)), ranks
    return stack, (*inputs, torch.randint(1, 7, (5, 3)))


@pytest.mark.parametrize("recompute", [False, True])
def test_gradients_of_one_pass_are_those_of_separate_networks(recompute):
    stack, (labels, shown, ranks, counts) = problem()
    losses = LossesAtOnce(stack, 0.1, recompute)(labels, shown, ranks, counts)
    losses.sum().backward()
    for number in range(3):
        network = Transformer(stack.config)
        network.load_state_dict({k: v[number] for k, v in stack.state_dict().items()})
        mask = ranks < counts[:, number, None]
        positions = mask.flatten().nonzero().squeeze(1)
        weights = (1 / (5 * mask.sum(1))).repeat_interleave(mask.sum(1))
        loss = MaskedLoss(network, 0.1)(labels, shown, positions, weights)
        loss.backward()
        assert losses[number].item() == pytest.approx(loss.item(), abs=1e-5)
        for (name, one), many in zip(network.named_parameters(), stack.parameters(), strict=True):
            assert torch.allclose(many.grad[number], one.grad, atol=1e-5, rtol=0), name


def test_dropout_of_one_pass_differs_between_networks_and_ends_in_evaluation():
    stack, inputs = problem(dropout=0.5)
    for parameter in stack.parameters():
        parameter.data[:] = parameter.data[:1].clone()
    inputs[3][:] = 4
    losses = LossesAtOnce(stack, 0.0)
    assert len(set(losses(*inputs).tolist())) == 3
    stack.eval()
    expected = LossesInTurn(stack, 0.0)(*inputs)
    assert torch.allclose(losses(*inputs), expected, atol=1e-5)


def test_shapes_of_one_pass_do_not_depend_on_the_masks():
    """What a CUDA graph needs; in bfloat16 the products are the only thing that is rounded."""
    stack, (labels, shown, ranks, counts) = problem()
    losses = LossesAtOnce(stack, 0.0)

    def shapes(counts):
        seen = []

        class Record(torch.utils._python_dispatch.TorchDispatchMode):
            def __torch_dispatch__(self, function, types, arguments=(), named=None):
                result = function(*arguments, **(named or {}))
                if isinstance(result, torch.Tensor):
                    seen.append((str(function), tuple(result.shape)))
                return result

        with Record():
            losses(labels, shown, ranks, counts).sum().backward()
        return seen

    first = shapes(counts)
    stack.zero_grad()
    assert shapes(torch.ones_like(counts)) == first
    assert not any("nonzero" in name or "_local_scalar" in name for name, _ in first)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = losses(labels, shown, ranks, counts)
    full = losses(labels, shown, ranks, counts)
    assert not torch.equal(half, full)
    assert torch.allclose(half, full, rtol=0.03)


@pytest.mark.parametrize("kind", [JointStage, AtOnce])
def test_a_resumed_run_has_the_bits_of_one_that_was_not_interrupted(tmp_path, kind):
    preset, names = tiny_preset(), ("cosine", "linear")
    whole, weights, expected, _ = run(kind, tmp_path / "whole", preset, schedules=names)
    run(kind, tmp_path / "cut", preset, schedules=names, stop_at=4)
    after, resumed, results, _ = run(kind, tmp_path / "cut", preset, schedules=names)
    assert after == {step: whole[step] for step in range(3, 8)}
    assert all(torch.equal(resumed[name], value) for name, value in weights.items())
    nlls = [k for k in expected if "nll" in k]
    assert [results[k] for k in nlls] == [expected[k] for k in nlls]
    assert len(nlls) == 3


@pytest.mark.parametrize("more", [{"accumulate": 4}, {"checkpoint_activations": True}])
@pytest.mark.parametrize("kind", [JointStage, AtOnce])
def test_less_memory_takes_the_same_step(tmp_path, kind, more):
    preset = tiny_preset(dropout=0.0 if "accumulate" in more else 0.1)
    names = ("cosine", "linear")
    expected, *_ = run(kind, tmp_path / "whole", preset, schedules=names, stop_at=3)
    found, *_ = run(kind, tmp_path / "cut", preset, schedules=names, stop_at=3, **more)
    for step, values in expected.items():
        assert found[step] == pytest.approx(values, rel=1e-4)


def test_a_folder_for_each_schedule_equal_to_that_of_a_separate_run(tmp_path):
    preset = replace(tiny_preset(), name="tiny", ships=False, data="imagefolder")
    source = tokens()
    save_tokens(tmp_path / "train.npz", source.tokens[:, 0], source.labels, "a" * 64)
    save_tokens(tmp_path / "val.npz", source.tokens[:, 1], source.labels, "a" * 64)
    inputs = commands.TokenData(tmp_path / "train.npz", val_tokens=tmp_path / "val.npz")
    options = RunOptions(tmp_path / "joint", log_every=1)
    out = tmp_path / "out"
    commands.train_transformers(preset, options, inputs, "linear,cosine", out, 0.0, "cmd")
    assert sorted(x.name for x in out.iterdir()) == ["transformer-cosine", "transformer-linear"]
    for name in ("linear", "cosine"):
        options = RunOptions(tmp_path / name, log_every=1)
        commands.train_transformer(preset, options, inputs, name, tmp_path / "one", 0.0, "cmd")
        joint, alone = read_card(out / f"transformer-{name}"), read_card(tmp_path / "one")
        assert joint["results"] == pytest.approx(alone["results"], rel=1e-3)
        kept = {"seconds", "sha256", "results"}
        assert {k: v for k, v in joint.items() if k not in kept} == {
            k: v for k, v in alone.items() if k not in kept
        }
        weights = load_transformer(tmp_path / "one").state_dict()
        for key, value in load_transformer(out / f"transformer-{name}").state_dict().items():
            assert torch.allclose(value, weights[key], atol=1e-5), key


def test_what_is_no_schedule_is_refused(tmp_path):
    inputs = commands.TokenData(tmp_path / "none")
    options = RunOptions(tmp_path)
    with pytest.raises(UsageError, match="--schedules 'cosin': unknown schedule"):
        commands.train_transformers(tiny_preset(), options, inputs, "cosin", tmp_path, 0.0, "")
