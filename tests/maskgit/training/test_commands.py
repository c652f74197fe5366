"""The commands of `python -m maskgit.training`, from images to weights, and what they refuse."""

from dataclasses import replace

import numpy as np
import pytest
import torch
import tyro

from maskgit.checkpoints import load_tokenizer, load_transformer, read_card, weights_sha256
from maskgit.common.errors import UsageError
from maskgit.presets import load_preset
from maskgit.training import commands
from maskgit.training.__main__ import Command, run
from maskgit.training.settings import RunOptions
from maskgit.training.shards import ShardTokens, ShardWriter
from maskgit.training.tokenize import TokenizeOptions, tokenize
from tests.maskgit.data.test_fashion_mnist import write_split
from tests.maskgit.training.training_doubles import make_folder, tiny_preset


def cli(*arguments):
    run(tyro.cli(Command, args=[str(a) for a in arguments]))


def folder_preset(**changes):
    """The tiny preset on colour image folders, as the ImageNet ones are."""
    preset = tiny_preset()
    preset = replace(preset, tokenizer=replace(preset.tokenizer, channels=3))
    return replace(
        preset,
        name="tiny",
        ships=False,
        data="imagefolder",
        crop="random-resized",
        flip=True,
        **changes,
    )


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    make_folder(root, 4)
    return make_folder(root, 2, "val")


def test_from_image_folders_to_weights(images, tmp_path):
    """Both stages; stage 2 sees tokens only, for the images are gone by then."""
    preset = folder_preset()
    options = RunOptions(run_dir=tmp_path / "run1", log_every=1, workers=1)
    commands.train_tokenizer(preset, options, images, tmp_path / "tok", "cmd", epochs=1)
    card = read_card(tmp_path / "tok")
    assert card["budget"]["steps"] == 2  # 12 images, batches of 6
    assert card["data"] == "image folder, 12 training images"
    tokenizer = load_tokenizer(tmp_path / "tok")
    assert next(tokenizer.parameters()).dtype == torch.float32

    for split in ("train", "val"):
        made = TokenizeOptions(split=split, crops=3 if split == "train" else None)
        tokenize(preset, images, tmp_path / "tok", tmp_path / split, made)
    assert ShardTokens(tmp_path / "val").crops == 1
    inputs = commands.TokenData(tokens=tmp_path / "train", val_tokens=tmp_path / "val", epochs=1.5)
    options = RunOptions(run_dir=tmp_path / "run2", log_every=1)
    commands.train_transformer(preset, options, inputs, "cosine", tmp_path / "out", 0.0, "cmd")
    card = read_card(tmp_path / "out")
    assert card["budget"]["steps"] == 3
    assert card["tokenizer_sha256"] == weights_sha256(tmp_path / "tok")
    assert 0 < card["results"]["validation_nll"] < 20
    assert card["data"] == "image folder, 12 images, 3 crops of each, as tokens"
    assert load_transformer(tmp_path / "out").config.num_classes == 3


def test_exported_weights_are_the_averaged_ones(images, tmp_path):
    preset = folder_preset()
    options = RunOptions(run_dir=tmp_path / "run", log_every=1)
    commands.train_tokenizer(preset, options, images, tmp_path / "tok", "cmd")
    saved = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    state = load_tokenizer(tmp_path / "tok").state_dict()
    for name, value in state.items():
        assert torch.equal(value, saved["average"][name]), name
    raw = saved["modules"]["tokenizer"]
    assert any(not torch.equal(value, raw[name]) for name, value in state.items())


def test_the_embedded_commands_of_the_readme(tmp_path, monkeypatch, capsys):
    """With a few made-up images in the place of Fashion-MNIST's training split."""
    monkeypatch.chdir(tmp_path)
    for split in ("train", "test"):
        write_split(tmp_path / "data", split, count=10)
    data = ("--data", tmp_path / "data", "--threads", 1)
    few = ("--steps", 2, "--batch-size", 4)
    cli("tokenizer", *data, *few)
    cli("tokenize", *data)
    assert (tmp_path / "runs/tokens/train.npz").is_file()
    cli("transformer", "--schedule", "cosine", *data, *few)
    folder = tmp_path / "runs/weights/transformer-cosine"
    assert load_transformer(folder).config.num_tokens == 64
    assert read_card(folder)["schedule"] == "cosine"
    cli("transformers", "--schedules", "cosine,linear", *data, *few, "--out", tmp_path / "joint")
    joint = load_transformer(tmp_path / "joint/transformer-cosine").state_dict()
    for name, value in load_transformer(folder).state_dict().items():
        assert torch.allclose(joint[name], value, atol=1e-3), name  # stored in float16
    assert read_card(tmp_path / "joint/transformer-linear")["schedule"] == "linear"
    assert capsys.readouterr().out == ""


def shards(folder, preset, count=6, sha="a" * 64):
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, preset.num_codes, (count, 1, preset.num_tokens))
    labels = rng.integers(0, preset.num_classes, count)
    writer = ShardWriter(
        folder,
        labels,
        {"tokenizer_sha256": sha, "num_codes": preset.num_codes},
        crops=1,
        num_tokens=preset.num_tokens,
        shard_images=count,
    )
    writer.write(0, tokens)
    assert writer.finish()
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("heads", [8, 16])
def test_full_size_transformer_takes_a_step_on_the_cpu(tmp_path, heads):
    """imagenet256 in every size but the number of layers, 2 instead of 24."""
    preset = load_preset("imagenet256", heads)
    preset = replace(
        preset,
        transformer=replace(preset.transformer, layers=2),
        transformer_training=replace(preset.transformer_training, steps=1, batch_size=2),
    )
    inputs = commands.TokenData(tokens=shards(tmp_path / "tokens", preset))
    options = RunOptions(run_dir=tmp_path / "run", accumulate=2, checkpoint_activations=True)
    commands.train_transformer(
        preset, options, inputs, "cosine", tmp_path / "out", preset.min_mask_ratio, "cmd"
    )
    made = load_transformer(tmp_path / "out")
    assert (made.config.width, made.config.heads, made.config.vocab_size) == (768, heads, 2025)
    # A fresh network's loss is close to that of a uniform guess over the vocabulary.
    assert read_card(tmp_path / "out")["results"]["train_loss"] == pytest.approx(7.6, abs=0.3)


@pytest.mark.slow
def test_full_size_tokenizer_takes_a_step_on_the_cpu(tmp_path):
    """imagenet256's stage 1 with its discriminator, one image at a time."""
    make_folder(tmp_path, 1, size=(300, 280))
    preset = load_preset("imagenet256")
    preset = replace(
        preset,
        num_classes=3,
        tokenizer_loss=replace(preset.tokenizer_loss, perceptual=0.0),
        tokenizer_training=replace(preset.tokenizer_training, steps=1, batch_size=2),
    )
    from accelerate import Accelerator

    from maskgit.data.registry import open_split
    from maskgit.training.stage1 import TokenizerStage

    options = RunOptions(run_dir=tmp_path / "run", accumulate=2)
    train = open_split(preset, tmp_path, "train", size=256)
    stage = TokenizerStage(preset, train, None, Accelerator(cpu=True), options)
    scalars = {k: float(v) for k, v in stage.step(0).items()}
    assert all(np.isfinite(v) for v in scalars.values()), scalars
    assert scalars["adversarial"] == pytest.approx(np.log(2), abs=0.1)


def test_missing_weights_of_the_perceptual_loss_are_one_line(images, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    preset = folder_preset()
    preset = replace(preset, tokenizer_loss=replace(preset.tokenizer_loss, perceptual=0.1))
    options = RunOptions(run_dir=tmp_path / "run")
    with pytest.raises(UsageError, match=r"vgg16-397923af\.pth.*--no-perceptual") as error:
        commands.train_tokenizer(preset, options, images, tmp_path / "out", "cmd")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_no_perceptual_leaves_the_loss_out(monkeypatch):
    seen = []
    monkeypatch.setattr(commands, "train_tokenizer", lambda preset, *a, **k: seen.append(preset))
    cli("tokenizer", "--preset", "imagenet256", "--no-perceptual")
    cli("tokenizer", "--preset", "imagenet256")
    assert [p.tokenizer_loss.perceptual for p in seen] == [0.0, 0.1]


def test_heads_and_mask_ratio_come_from_preset_or_flag(monkeypatch):
    seen = []
    monkeypatch.setattr(commands, "train_transformer", lambda *a: seen.append(a))
    cli("transformer", "--preset", "imagenet256")
    cli("transformer", "--preset", "imagenet256", "--heads", 8, "--min-mask-ratio", 0.0)
    assert [(a[0].transformer.heads, a[5]) for a in seen] == [(16, 0.5), (8, 0.0)]
    assert str(seen[0][2].tokens) == "runs/tokens/imagenet256"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("tokenizer", "--steps", 0), "--steps 0: expected a number above 0"),
        (("tokenizer", "--accumulate", 0), "--accumulate 0"),
        (("transformer", "--epochs", -1), "--epochs -1"),
        (("transformer", "--epochs", 2, "--steps", 3), "--steps 3, --epochs 2.0: expected only"),
        (("transformer", "--precision", "fp16"), "--precision fp16: expected auto, fp32 or bf16"),
        (("transformer", "--heads", 5), "--heads 5"),
        (("transformer", "--workers", -2), "--workers -2"),
        (("tokenizer", "--preset", "nope"), "--preset nope: expected one of"),
        (("tokenizer", "--preset", "imagenet256"), "--data: the preset imagenet256 needs"),
        (("tokenize", "--preset", "imagenet256", "--part", "9/8"), "--part 9/8"),
        (("tokenize", "--verify"), r"runs/tokens/train\.npz: no index\.json"),
        (("cost", "--gpu", "tpu"), "--gpu tpu: expected one of a100"),
        (("cost", "--utilisation", 1.5), "--utilisation 1.5"),
        (("cost", "--count", 0), "--count 0"),
    ],
)
def test_bad_input_is_one_line(tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=message) as error:
        cli(*arguments)
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_tokens_that_do_not_fit_the_preset_are_refused(tmp_path):
    preset = folder_preset()
    options = RunOptions(run_dir=tmp_path / "run")
    shards(tmp_path / "tokens", preset)
    for other, message in (
        (replace(preset, image_size=16), "16 tokens an image, the preset tiny has 64"),
        (replace(preset, num_classes=1), "class 2, the preset tiny has 1 classes"),
    ):
        inputs = commands.TokenData(tokens=tmp_path / "tokens")
        with pytest.raises(UsageError, match=message):
            commands.train_transformer(other, options, inputs, "cosine", tmp_path, 0.0, "cmd")
    inputs = commands.TokenData(tokens=tmp_path / "nowhere")
    with pytest.raises(UsageError, match="nowhere: no such file or folder"):
        commands.train_transformer(preset, options, inputs, "cosine", tmp_path, 0.0, "cmd")


def test_tampered_shard_stops_a_run_before_its_first_step(tmp_path):
    preset = folder_preset()
    folder = shards(tmp_path / "tokens", preset)
    path = folder / "tokens-00000.npy"
    raw = bytearray(path.read_bytes())
    raw[-2] ^= 1
    path.write_bytes(raw)
    options = RunOptions(run_dir=tmp_path / "run")
    inputs = commands.TokenData(tokens=folder)
    with pytest.raises(UsageError, match=r"tokens-00000\.npy: sha256"):
        commands.train_transformer(preset, options, inputs, "cosine", tmp_path / "o", 0.0, "c")
    assert not (tmp_path / "run").exists()
    # Without the check the run starts, and nothing but that token is wrong.
    preset = replace(preset, transformer_training=replace(preset.transformer_training, steps=1))
    inputs = replace(inputs, verify=False)
    commands.train_transformer(preset, options, inputs, "cosine", tmp_path / "o", 0.0, "c")


def test_cost_counts_what_the_official_network_does():
    """93.4 GFLOP for a forward pass is what XLA counts for the official code at this size."""
    from maskgit.model.transformer import Transformer
    from maskgit.training import cost

    preset = load_preset("imagenet256")
    with torch.device("meta"):
        model = Transformer(preset.transformer_config).eval()
        tokens = torch.zeros(1, 257, dtype=torch.int64)
    assert cost.count_flops(lambda: model(tokens)) == pytest.approx(93.4e9, rel=0.005)
    # Backward is twice forward; a second forward is added when activations are recomputed.
    step = cost.transformer_step_flops(preset)
    again = cost.transformer_step_flops(preset, checkpoint_activations=True)
    assert again / step == pytest.approx(4 / 3, rel=0.01)


def test_cost_is_flops_over_peak_times_utilisation(capsys):
    from maskgit.training import cost

    cli("cost", "--preset", "embedded", "--gpu", "a100", "--count", 4, "--utilisation", 0.25)
    out = capsys.readouterr().out
    lines = cost.cost_lines(load_preset("embedded"), None, 10)
    total = sum(line.total for line in lines)
    hours = total / (312e12 * 0.25) / 3600
    assert f"{hours:.4g}" in out.splitlines()[-5]
    assert "assumed" in out
    assert [line.images for line in lines] == [2400 * 64, 60_000, 1200 * 128]


def test_denormals_are_flushed_while_training_only():
    tiny = torch.tensor(1e-310, dtype=torch.float64)
    for outside in (True, False):
        torch.set_flush_denormal(outside)
        with commands.flushed_denormals():
            assert tiny * 1.0 == 0.0
        assert bool(tiny * 1.0 == 0.0) == outside
