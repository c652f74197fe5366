"""The autoregressive baseline's files: saved, loaded, refused, and the one that is shipped."""

import pytest
import torch

from maskgit.checkpoints import (
    load_autoregressive,
    load_tokenizer,
    load_transformer,
    read_card,
    save_model,
    weights_sha256,
    zoo_path,
)
from maskgit.common.errors import UsageError
from maskgit.model.config import TransformerConfig
from maskgit.sampling.autoregressive import Autoregressive


@pytest.fixture
def model():
    torch.manual_seed(3)
    return Autoregressive(TransformerConfig(24, 5, 16, width=32, layers=2, heads=4, mlp=48)).eval()


@pytest.mark.parametrize("half", [False, True])
def test_saved_and_loaded(tmp_path, model, half):
    save_model(tmp_path / "model", model, half=half)
    loaded = load_autoregressive(tmp_path / "model")
    assert loaded.config == model.config
    assert not loaded.training
    for name, value in model.state_dict().items():
        expected = value.half().float() if half else value
        assert torch.equal(loaded.state_dict()[name], expected), name


def test_other_weights_are_refused(tmp_path, model):
    save_model(tmp_path / "model", model)
    for load in (load_transformer, load_tokenizer):
        with pytest.raises(UsageError, match="kind 'autoregressive', expected '"):
            load(tmp_path / "model")
    with pytest.raises(UsageError, match="kind 'transformer', expected 'autoregressive'"):
        load_autoregressive(zoo_path("transformer-cosine"))
    file = tmp_path / "maskgit_imagenet256_checkpoint"
    file.write_bytes(b"\x80")
    with pytest.raises(UsageError, match="there is no official autoregressive checkpoint"):
        load_autoregressive(file)
    with pytest.raises(UsageError, match="no such file or folder, expected the weights of a"):
        load_autoregressive(tmp_path / "none")


def test_shipped_model_is_the_one_of_its_card():
    folder = zoo_path("autoregressive")
    card, model = read_card(folder), load_autoregressive(folder)
    assert card["sha256"] == weights_sha256(folder)
    assert card["tokenizer_sha256"] == weights_sha256(zoo_path("tokenizer"))
    masked = read_card(zoo_path("transformer-cosine"))
    assert card["budget"] == masked["budget"]
    assert model.config == load_transformer(zoo_path("transformer-cosine")).config
    assert sum(file.stat().st_size for file in folder.iterdir()) < 6e6
