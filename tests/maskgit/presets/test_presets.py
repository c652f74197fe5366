"""Presets: the paper's sizes by their parameter counts, the official file's shapes, heads."""

import dataclasses

import pytest
import torch

from maskgit.common.errors import UsageError
from maskgit.model.tokenizer import Tokenizer
from maskgit.model.transformer import Transformer
from maskgit.presets import NAMES, files, load_preset
from maskgit.schedules import FORMULAS


def count(make, config):
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in make(config).parameters())


@pytest.mark.parametrize(
    ("name", "parameters"), [("imagenet256", 172_457_193), ("imagenet512", 173_047_017)]
)
@pytest.mark.parametrize("heads", [None, 8])
def test_transformers_have_the_released_size_with_16_and_8_heads(name, parameters, heads):
    preset = load_preset(name, heads=heads)
    assert preset.transformer.heads == (heads or 16)
    assert count(Transformer, preset.transformer_config) == parameters


@pytest.mark.parametrize("name", ["imagenet256", "imagenet512", "places2"])
def test_tokenizers_have_the_released_size(name):
    assert count(Tokenizer, load_preset(name).tokenizer) == 54_515_587


def test_the_paper_s_227_million_are_both_networks():
    preset = load_preset("imagenet256")
    total = count(Transformer, preset.transformer_config) + count(Tokenizer, preset.tokenizer)
    assert round(total / 1e6) == 227  # Table 1


@pytest.mark.parametrize(
    ("name", "side", "vocabulary"),
    [("imagenet256", 16, 2025), ("imagenet512", 32, 2025), ("places2", 32, 1026)],
)
def test_grids_and_vocabularies_of_the_full_size(name, side, vocabulary):
    preset = load_preset(name)
    assert preset.grid == (side, side)
    assert preset.num_tokens == side**2
    config = preset.transformer_config
    assert (config.vocab_size, config.mask_id) == (vocabulary, vocabulary - 1)


@pytest.mark.parametrize(
    ("name", "epochs", "images"),
    [
        ("imagenet256", 300, 1_281_167),
        ("imagenet512", 300, 1_281_167),
        ("places2", 200, 1_803_460),
    ],
)
def test_budgets_are_the_paper_s_epochs(name, epochs, images):
    preset = load_preset(name)
    budget = preset.transformer_training
    assert preset.train_images == images
    seen = budget.steps * budget.batch_size
    assert 0 <= seen - epochs * images < budget.batch_size
    assert preset.epochs == pytest.approx(epochs, abs=1e-3)


@pytest.mark.parametrize("name", NAMES)
def test_every_preset_fits_together(name):
    preset = load_preset(name)
    assert preset.name == name
    assert len(preset.class_names) == preset.num_classes
    assert preset.conditional or preset.num_classes == 1
    assert set(preset.schedules) <= set(FORMULAS)
    assert preset.image_size % preset.tokenizer.downsampling == 0
    assert preset.transformer.width % preset.transformer.heads == 0
    assert preset.data in ("fashion-mnist", "imagefolder")
    assert preset.crop in ("none", "random-resized", "center")
    assert preset.tokenizer.num_codes < 2**16  # tokens are stored as uint16
    assert "python -m maskgit." in (files.FOLDER / f"{name}.toml").read_text()
    hash(preset)


def test_places2_differs_from_imagenet_in_data_only():
    """Paper, section 4.3: all hyperparameters are kept the same."""
    places, imagenet = load_preset("places2"), load_preset("imagenet512")
    for name in ("tokenizer", "tokenizer_loss", "tokenizer_training", "transformer", "grid"):
        assert getattr(places, name) == getattr(imagenet, name), name
    ours = dataclasses.replace(places.transformer_training, steps=0)
    assert ours == dataclasses.replace(imagenet.transformer_training, steps=0)
    assert not places.official
    assert not places.conditional


@pytest.mark.parametrize("heads", [0, -8, 7, 769, True])
def test_heads_must_divide_the_width(heads):
    with pytest.raises(UsageError, match=f"--heads {heads}: expected a divisor of the width 768"):
        load_preset("imagenet256", heads=heads)


def test_an_unknown_preset_lists_the_names():
    expected = "--preset imagenet: expected one of embedded, imagenet256, imagenet512, places2"
    with pytest.raises(UsageError, match=expected):
        load_preset("imagenet")
