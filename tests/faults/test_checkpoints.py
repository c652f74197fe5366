"""Model folders and official files: impossible sizes, numbers that are none, files that change."""

import json
import os
import shutil

import msgpack
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from maskgit.checkpoints import load_model, load_transformer, save_model
from maskgit.checkpoints.flax import write_flax
from maskgit.common.errors import UsageError
from maskgit.model.config import TokenizerConfig, TransformerConfig
from maskgit.model.tokenizer import Tokenizer
from maskgit.model.transformer import Transformer
from tests.faults.abuse import damaged, fault, report, strange_json

TOKENIZER = TokenizerConfig(
    channels=1, filters=4, multipliers=(1, 1), blocks=1, num_codes=16, code_dim=4, norm_groups=2
)
TRANSFORMER = TransformerConfig(16, 3, 4, width=8, layers=2, heads=2, mlp=8, dropout=0.0)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """tokenizer/ and transformer/ of a few hundred float32 parameters."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    save_model(folder / "tokenizer", Tokenizer(TOKENIZER))
    save_model(folder / "transformer", Transformer(TRANSFORMER))
    return folder


@pytest.fixture
def copies(models, tmp_path):
    """A copy of these models, to be spoilt."""
    shutil.copytree(models, tmp_path / "models")
    return tmp_path / "models"


def set_sizes(folder, **sizes):
    path = folder / "config.json"
    content = json.loads(path.read_text())
    content["config"].update(sizes)
    path.write_text(json.dumps(content))


# 14: sizes.

HUGE = [
    ("transformer", {"layers": 30_000_000}),
    ("transformer", {"width": 2**40, "heads": 1}),
    ("transformer", {"width": 2**62, "heads": 2}),
    ("transformer", {"num_codes": 2**63}),
    ("transformer", {"num_tokens": 10**30}),
    ("tokenizer", {"multipliers": [1] * 1_000_000}),
    ("tokenizer", {"multipliers": [2**40, 1]}),
    ("tokenizer", {"multipliers": []}),
    ("tokenizer", {"multipliers": None}),
    ("tokenizer", {"multipliers": ["1", 1]}),
    ("tokenizer", {"filters": 2**40}),
    ("tokenizer", {"filters": -4}),
    ("tokenizer", {"filters": 4.0}),
    ("tokenizer", {"norm_groups": 0}),
    ("tokenizer", {"norm_groups": -2}),
    ("tokenizer", {"norm_groups": 3}),
    ("tokenizer", {"blocks": 30_000_000}),
    ("tokenizer", {"blocks": None}),
    ("tokenizer", {"num_codes": 10**30}),
    ("tokenizer", {"code_dim": -1}),
    ("tokenizer", {"channels": True}),
]
OTHERS = [
    ("transformer", {"mlp": 2**40}),
    ("transformer", {"layers": None}),
    ("transformer", {"dropout": None}),
    ("transformer", {"dropout": float("nan")}),
    ("transformer", {"width": "8"}),
    ("tokenizer", {"multipliers": [0, 1]}),
    ("tokenizer", {"filters": 0}),
]
CASES = [pytest.param(*case, id=f"{case[0]} {str(case[1])[:40]}") for case in (*HUGE, *OTHERS)]


@pytest.mark.parametrize(("kind", "sizes"), CASES)
def test_impossible_sizes_are_refused_at_once(copies, kind, sizes):
    set_sizes(copies / kind, **sizes)
    refused = []

    def load():
        try:
            load_model(copies / kind)
        except UsageError as error:
            refused.append(str(error))

    assert fault(load, (), seconds=3) == ""
    assert refused


# Numbers that are none.


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("kind", ["tokenizer", "transformer"])
def test_weights_that_are_not_finite_are_refused(copies, kind, value):
    path = copies / kind / "model.safetensors"
    state = load_file(path)
    name = sorted(state)[0]
    state[name].view(-1)[0] = value
    save_file(state, path)
    with pytest.raises(UsageError, match=name):
        load_model(copies / kind)


def test_an_official_file_that_is_not_finite_is_refused(tmp_path):
    model = Transformer(TRANSFORMER)
    with torch.no_grad():
        model.word_embeddings.weight[0, 0] = float("nan")
    write_flax(tmp_path / "checkpoint", model)
    with pytest.raises(UsageError):
        load_transformer(tmp_path / "checkpoint", num_codes=16)


def test_pixels_that_are_not_finite_are_no_picture():
    from experiments.sampler.imaging import decode_batches

    torch.manual_seed(0)
    tokenizer = Tokenizer(TOKENIZER).eval()
    with torch.no_grad():
        tokenizer.decoder.conv_out.bias.fill_(float("nan"))
    with pytest.raises((ValueError, RuntimeError)):
        list(decode_batches(tokenizer, np.zeros((2, 4), np.uint16), (2, 2)))


# Files that change.


@pytest.mark.parametrize("kind", ["tokenizer", "transformer"])
def test_a_loaded_model_does_not_change_with_its_file(copies, kind):
    path = copies / kind / "model.safetensors"
    model = load_model(copies / kind)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    header = 8 + int.from_bytes(path.read_bytes()[:8], "little")
    with open(path, "r+b") as file:  # as cp onto it does: the same file, other bytes
        file.seek(header)
        file.write(bytes(os.path.getsize(path) - header))
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])


@pytest.mark.parametrize("kind", ["tokenizer", "transformer", "sizes"])
def test_weights_that_were_replaced_are_not_taken_for_the_old_ones(tmp_path, monkeypatch, kind):
    from experiments.engine.cells import Sampling
    from experiments.studies.ablate_schedule.experiment import Options, build

    monkeypatch.setattr("experiments.sampler.held_out.NLL_IMAGES", 20)
    tokenizer = TokenizerConfig(
        channels=1, filters=4, multipliers=(1, 1, 1), blocks=1, num_codes=512, code_dim=4,
        norm_groups=2,
    )  # fmt: skip
    sizes = TransformerConfig(512, 10, 64, width=16, layers=1, heads=2, mlp=16, dropout=0.0)
    for seed, folder in enumerate(("old", "new")):
        torch.manual_seed(seed)
        save_model(tmp_path / folder / "tokenizer", Tokenizer(tokenizer))
        save_model(tmp_path / folder / "transformer-cosine", Transformer(sizes))
    built = build(
        Options(
            T="2", schedules="cosine", num_samples=4, metrics="fid", weights=tmp_path / "old",
            out=tmp_path / "run", device="cpu",
        )
    )  # fmt: skip
    (task,) = built.tasks
    name = "tokenizer" if kind == "tokenizer" else "transformer-cosine"
    if kind == "sizes":  # which no weight shows
        set_sizes(tmp_path / "old" / name, heads=1)
    else:
        shutil.rmtree(tmp_path / "old" / name)
        shutil.copytree(tmp_path / "new" / name, tmp_path / "old" / name)
    worker = built.computer
    worker.start(0, 1)
    with pytest.raises((UsageError, RuntimeError)):
        _ = worker.tokenizer if kind == "tokenizer" else worker.sampler(Sampling.of(task.cell))


@pytest.mark.parametrize("how", ["module", "average", "missing", "stage"])
def test_a_training_checkpoint_with_other_keys_is_refused(tmp_path, how):
    from tests.maskgit.training.training_doubles import recorded

    recorded("transformer", tmp_path, stop_at=3)
    (path,) = tmp_path.rglob("checkpoint*")
    payload = torch.load(path, weights_only=True)
    if how == "module":
        modules = next(iter(payload["modules"].values()))
        modules["other"] = modules.pop(next(iter(modules)))
    elif how == "average":
        payload["average"]["other"] = torch.zeros(1)
    elif how == "missing":
        del payload["optimisers"]
    else:
        payload["stage"] = None
    torch.save(payload, path)
    assert fault(lambda: recorded("transformer", tmp_path, stop_at=3), seconds=60) == ""


# Fuzzers.


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tokenizer", "transformer"])
def test_strange_configurations_are_refused(copies, kind):
    path = copies / kind / "config.json"
    cases = list(strange_json(json.loads(path.read_text()), 300))
    wrong = {}
    for name, content in cases:
        path.write_bytes(content)
        if what := fault(lambda: load_model(copies / kind), seconds=2):
            wrong[name] = what
    report(wrong, len(cases))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["tokenizer", "transformer"])
def test_damaged_weights_are_refused_or_of_the_right_shapes(copies, kind):
    path = copies / kind / "model.safetensors"
    raw = path.read_bytes()
    size = 8 + int.from_bytes(raw[:8], "little")
    cases = [(name, head + raw[size:]) for name, head in damaged(raw[:size], 300)]
    cases += damaged(raw, 100)
    wrong = {}
    for name, content in cases:
        path.write_bytes(content)
        if what := fault(lambda: load_model(copies / kind)):
            wrong[name] = what
    report(wrong, len(cases))


@pytest.mark.slow
def test_damaged_official_files_are_refused_or_of_the_right_shapes(tmp_path):
    write_flax(tmp_path / "checkpoint", Transformer(TRANSFORMER))
    raw, wrong = (tmp_path / "checkpoint").read_bytes(), {}
    cases = list(damaged(raw, 400))
    for name, content in cases:
        (tmp_path / "checkpoint").write_bytes(content)
        if what := fault(lambda: load_transformer(tmp_path / "checkpoint", num_codes=16)):
            wrong[name] = what
    report(wrong, len(cases))


def test_a_hostile_official_file_is_refused_quickly(tmp_path):
    path = tmp_path / "checkpoint"
    deep = {"a": {}}
    for _ in range(400):
        deep = {"a": deep}
    array = msgpack.packb(((2**40,), "float32", b""))
    cases = {
        "deep": msgpack.packb({"params": deep}),
        "long array": msgpack.packb({"params": {"a": msgpack.ExtType(1, array)}}),
        "long map": b"\x81\xa6params\xdf\xff\xff\xff\xff",
        "long list": b"\x81\xa6params\xdd\xff\xff\xff\xff",
        "chunks": msgpack.packb(
            {"params": {"__msgpack_chunked_array__": True, "shape": {}, "chunks": {}}}
        ),
        "number": msgpack.packb(1),
        "date": b"\x81\xa6params\x81\xa1a\xd6\xff\0\0\0\0",
    }
    wrong = {}
    for name, content in cases.items():
        path.write_bytes(content)
        if what := fault(lambda: load_transformer(path), memory=1 << 30):
            wrong[name] = what
    report(wrong, len(cases))
