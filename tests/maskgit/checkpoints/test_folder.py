"""Models on disk: official files against the official numbers, our folders, damaged ones."""

import hashlib
import json

import msgpack
import numpy as np
import pytest
import torch

from maskgit.checkpoints import (
    load_tokenizer,
    load_transformer,
    read_card,
    save_model,
    weights_sha256,
    zoo_path,
)
from maskgit.checkpoints.flax import write_flax
from maskgit.common.errors import UsageError
from maskgit.model.config import TokenizerConfig, TransformerConfig
from maskgit.model.tokenizer import Tokenizer
from maskgit.model.transformer import Transformer
from tests.maskgit.checkpoints.test_flax import unpack
from tests.paths import GOLDEN

TRANSFORMER = GOLDEN / "maskgit_tiny_checkpoint"


def test_official_transformer_gives_the_official_logits():
    golden = np.load(GOLDEN / "maskgit_tiny.npz")
    model = load_transformer(TRANSFORMER, num_codes=32)
    assert model.config == TransformerConfig(32, 10, 4, width=64, layers=2, heads=4, mlp=128)
    assert not model.training
    tokens = torch.from_numpy(golden["input_ids"].astype(np.int64))
    assert (tokens == -1).any()
    with torch.no_grad():
        np.testing.assert_allclose(model(tokens), golden["logits"], atol=1e-4, rtol=0)
        tokens[tokens == -1] = model.config.mask_id
        np.testing.assert_allclose(model(tokens), golden["logits"], atol=1e-4, rtol=0)


def test_official_tokenizer_gives_the_official_outputs(tokenizer_file):
    golden = np.load(GOLDEN / "tokenizer_tiny.npz")
    tokenizer = load_tokenizer(tokenizer_file)
    assert tokenizer.config == TokenizerConfig(
        filters=32, multipliers=(1, 1, 2, 2, 4), blocks=1, num_codes=32, code_dim=16
    )
    images = torch.from_numpy(golden["image"]).permute(0, 3, 1, 2).contiguous()
    with torch.no_grad():
        features = tokenizer.encoder(images).permute(0, 2, 3, 1)
        np.testing.assert_allclose(features, golden["encoder_output"], atol=1e-4, rtol=0)
        np.testing.assert_array_equal(tokenizer.encode(images), golden["indices"])
        indices = torch.from_numpy(golden["indices"].astype(np.int64))
        images = tokenizer.decode(indices).permute(0, 2, 3, 1)
        np.testing.assert_allclose(images, golden["reconstruction"], atol=1e-3, rtol=0)


def test_the_official_tokenizer_is_written_byte_for_byte(tmp_path, tokenizer_file):
    write_flax(tmp_path / "file", load_tokenizer(tokenizer_file))
    assert (tmp_path / "file").read_bytes() == tokenizer_file.read_bytes()


@pytest.mark.parametrize("num_codes", [None, 1, 41])
def test_codes_and_classes_share_the_vocabulary(num_codes):
    config = load_transformer(TRANSFORMER, num_codes).config
    assert config.num_codes == (num_codes or 32)
    assert config.num_codes + config.num_classes == 42


@pytest.mark.parametrize("num_codes", [0, 42, 1000])
def test_num_codes_must_fit_the_vocabulary(num_codes):
    with pytest.raises(UsageError, match=f"num_codes {num_codes}: expected 1 to 41"):
        load_transformer(TRANSFORMER, num_codes)


def small_transformer():
    return Transformer(TransformerConfig(6, 2, 4, width=8, layers=1, heads=2, mlp=8, dropout=0.2))


def small_tokenizer():
    config = TokenizerConfig(
        channels=1, filters=4, multipliers=(1, 2), blocks=1, num_codes=6, code_dim=3, norm_groups=2
    )
    return Tokenizer(config)


CASES = [(small_transformer, load_transformer), (small_tokenizer, load_tokenizer)]


@pytest.mark.parametrize(("make", "load"), CASES)
@pytest.mark.parametrize("half", [False, True])
def test_folders_give_the_model_back(tmp_path, make, load, half):
    model = make()
    save_model(tmp_path / "new" / "model", model, half=half, card={"note": "ä"})
    loaded = load(tmp_path / "new" / "model")
    assert loaded.config == model.config
    assert hash(loaded.config) == hash(model.config)
    assert not loaded.training
    for name, tensor in model.state_dict().items():
        expected = tensor.half().float() if half else tensor
        assert torch.equal(loaded.state_dict()[name], expected), name
    assert all(parameter.requires_grad for parameter in loaded.parameters())
    assert read_card(tmp_path / "new" / "model") == {"note": "ä"}


def test_a_folder_is_replaced_as_a_whole(tmp_path, monkeypatch):
    folder = tmp_path / "model"
    first = small_transformer()
    save_model(folder, first, card={"run": 1})
    save_model(folder, small_tokenizer())
    assert read_card(folder) == {}
    load_tokenizer(folder)
    before = weights_sha256(folder)

    def full_disk(*_):
        raise OSError("no space left")

    monkeypatch.setattr("maskgit.checkpoints.folder.write_json", full_disk)
    with pytest.raises(OSError, match="no space left"):
        save_model(folder, first)
    assert weights_sha256(folder) == before
    load_tokenizer(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_the_hash_is_that_of_the_weights_file(tmp_path):
    folder = tmp_path / "model"
    save_model(folder, small_transformer(), card={"a": 1})
    content = (folder / "model.safetensors").read_bytes()
    assert weights_sha256(folder) == hashlib.sha256(content).hexdigest()
    assert weights_sha256(TRANSFORMER) == hashlib.sha256(TRANSFORMER.read_bytes()).hexdigest()
    with pytest.raises(UsageError, match="no such file"):
        weights_sha256(tmp_path)


def test_the_zoo_names_its_models(tmp_path, monkeypatch):
    monkeypatch.setattr("maskgit.checkpoints.paths.ZOO", tmp_path)
    with pytest.raises(UsageError, match=r"the zoo is empty"):
        zoo_path("tokenizer")
    save_model(tmp_path / "tokenizer", small_tokenizer())
    (tmp_path / "images").mkdir()
    assert zoo_path("tokenizer") == tmp_path / "tokenizer"
    for name in ("images", "tokeniser", "../tokenizer", ""):
        with pytest.raises(UsageError, match="expected one of tokenizer"):
            zoo_path(name)


def damaged(folder, change):
    """Our folder of a small transformer after `change(folder)`."""
    save_model(folder, small_transformer())
    change(folder)
    return folder


def rewrite_config(**changes):
    def change(folder):
        file = folder / "config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))

    return change


def cut_weights(size):
    def change(folder):
        file = folder / "model.safetensors"
        file.write_bytes(file.read_bytes()[:size])

    return change


def rewrite_state(edit):
    def change(folder):
        from safetensors.torch import load_file, save_file

        state = load_file(folder / "model.safetensors")
        edit(state)
        save_file(state, folder / "model.safetensors")

    return change


SIZES = {"num_codes": 6, "num_classes": 2, "num_tokens": 4, "width": 8, "layers": 1, "heads": 2}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: (f / "config.json").unlink(), r"config.json: no such file"),
        (lambda f: (f / "model.safetensors").unlink(), r"model.safetensors: no such file"),
        (lambda f: (f / "config.json").write_text("{"), "not readable as JSON"),
        (lambda f: (f / "config.json").write_text("[]"), "expected a JSON object, got list"),
        (rewrite_config(format=9), "format 9, expected 1"),
        (rewrite_config(kind="tokenizer"), "kind 'tokenizer', expected 'transformer'"),
        (rewrite_config(config={**SIZES, "depth": 2}), "not the sizes of a transformer"),
        (rewrite_config(config={**SIZES, "heads": 3}), "heads must divide the width 8"),
        (rewrite_config(config=3), "not the sizes of a transformer"),
        (
            rewrite_config(config={**SIZES, "mlp": 16}),
            r"mlp_in.weight has shape \(8, 8\), expected \(16, 8\)",
        ),
        (
            rewrite_config(config={**SIZES, "mlp": 8, "layers": 2}),
            r"layers.1.attention.qkv.weight is missing, expected shape \(24, 8\)",
        ),
        (cut_weights(0), "not a whole safetensors file"),
        (cut_weights(100), "not a whole safetensors file"),
        (cut_weights(-1), "not a whole safetensors file"),
        (
            rewrite_state(lambda s: s.update(more=torch.zeros(3))),
            r"more of shape \(3,\) has no place",
        ),
        (
            rewrite_state(lambda s: s.update(head_bias=torch.zeros(9, dtype=torch.int64))),
            "head_bias has type torch.int64",
        ),
    ],
)
def test_damaged_folders_are_one_line(tmp_path, change, message):
    folder = damaged(tmp_path / "model", change)
    with pytest.raises(UsageError, match=message) as caught:
        load_transformer(folder)
    assert "\n" not in str(caught.value)


def test_paths_and_numbers_that_do_not_fit(tmp_path):
    with pytest.raises(UsageError, match="no such file or folder, expected the weights of a tok"):
        load_tokenizer(tmp_path / "absent")
    save_model(tmp_path / "model", small_transformer())
    assert load_transformer(tmp_path / "model", num_codes=6).config.num_codes == 6
    with pytest.raises(UsageError, match="num_codes 5: expected 6"):
        load_transformer(tmp_path / "model", num_codes=5)


def pack(tree):
    def array(value):
        content = msgpack.packb((value.shape, value.dtype.name, value.tobytes()))
        return msgpack.ExtType(1, content)

    return msgpack.packb(tree, default=array)


def edit_leaf(name, value):
    """A change of one leaf of the official transformer's tree; None takes it away."""

    def change(tree):
        *groups, leaf = name.split("/")
        for group in groups:
            tree = tree.setdefault(group, {})
        if value is None:
            del tree[leaf]
        else:
            tree[leaf] = value

    return change


ATTENTION = "TransformerLayer_1/Attention_0/self_attention"


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (
            f"{ATTENTION}/key/kernel",
            np.zeros((64, 2, 32), "f4"),
            rf"{ATTENTION}/key/kernel has shape \(64, 2, 32\), expected \(64, 4, 16\)",
        ),
        ("MlmLayer_0/mlm_bias/bias", None, r"mlm_bias/bias is missing, expected shape \(43,\)"),
        ("Embed_0/word_embeddings/embedding", None, "word_embeddings/embedding is missing"),
        (
            "Embed_0/word_embeddings/embedding",
            np.zeros(3, "f4"),
            r"has shape \(3,\), expected 2 dimensions",
        ),
        ("Extra_0/kernel", np.zeros((2, 3), "f4"), r"Extra_0/kernel of shape \(2, 3\) has no pl"),
        ("TransformerLayer_1/extra", 7, "TransformerLayer_1/extra is no array"),
        (
            "TransformerLayer_0/Attention_0/self_attention/query/kernel",
            np.zeros((64, 3, 16), "f4"),
            "sizes that fit no transformer",
        ),
        (
            "MlmLayer_0/mlm_bias/bias",
            np.zeros(43, "i4"),
            "bias has type int32, expected floating-",
        ),
    ],
)
def test_official_files_that_do_not_fit_are_one_line(tmp_path, name, value, message):
    tree = unpack(TRANSFORMER)
    edit_leaf(name, value)(tree["params"])
    (tmp_path / "changed").write_bytes(pack(tree))
    with pytest.raises(UsageError, match=message) as caught:
        load_transformer(tmp_path / "changed")
    assert "\n" not in str(caught.value)


def test_packing_by_this_file_is_that_of_flax(tmp_path):
    (tmp_path / "same").write_bytes(pack(unpack(TRANSFORMER)))
    for one, other in zip(
        load_transformer(TRANSFORMER).parameters(),
        load_transformer(tmp_path / "same").parameters(),
        strict=True,
    ):
        assert torch.equal(one, other)


def test_half_precision_files_load_as_float32(tmp_path):
    def halve(tree):
        return {k: halve(v) if isinstance(v, dict) else v.astype("f2") for k, v in tree.items()}

    (tmp_path / "half").write_bytes(pack(halve(unpack(TRANSFORMER))))
    model = load_transformer(tmp_path / "half")
    expected = load_transformer(TRANSFORMER)
    assert torch.equal(model.head_dense.weight, expected.head_dense.weight.half().float())


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("decoder/Conv_9/bias", np.zeros(3, "f4"), "fit no tokenizer"),
        ("encoder/ResBlock_2/Conv_2/kernel", None, r"ResBlock_2/Conv_2/kernel is missing"),
        (
            "encoder/ResBlock_2/Conv_0/kernel",
            np.zeros((3, 3, 32, 40), "f4"),
            r"encoder widths \[32, 32, 40, 64, 128\] are no multiples of the first, 32",
        ),
        (
            "decoder/Conv_5/kernel",
            np.zeros((3, 3, 32, 1), "f4"),
            r"decoder/Conv_5/kernel has shape \(3, 3, 32, 1\), expected \(3, 3, 32, 3\)",
        ),
    ],
)
def test_official_tokenizers_that_do_not_fit(tmp_path, tokenizer_file, name, value, message):
    tree = unpack(tokenizer_file)
    edit_leaf(name, value)(tree["params"])
    (tmp_path / "changed").write_bytes(pack(tree))
    with pytest.raises(UsageError, match=message):
        load_tokenizer(tmp_path / "changed")


@pytest.mark.parametrize("size", [0, 1, 100, 150_000, -1])
def test_truncated_official_files_are_one_line(tmp_path, size):
    (tmp_path / "cut").write_bytes(TRANSFORMER.read_bytes()[:size])
    with pytest.raises(UsageError, match="not a whole flax checkpoint") as caught:
        load_transformer(tmp_path / "cut")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        b"PK\x03\x04 a zip file, as torch writes",
        b"\x89PNG\r\n\x1a\n",
        b"version https://example.org/spec\n",
        msgpack.packb({"params": 3}),
        msgpack.packb([1, 2]),
        msgpack.packb({"weights": {}}),
        msgpack.packb({"params": {"a": msgpack.ExtType(5, b"x")}}),
        msgpack.packb({"params": {"a": msgpack.ExtType(1, b"\x01")}}),
    ],
)
def test_foreign_files_are_one_line(tmp_path, content):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(UsageError, match=r"not a (whole )?flax checkpoint") as caught:
        load_tokenizer(tmp_path / "file")
    assert "\n" not in str(caught.value)


def test_the_wrong_kind_of_official_file(tokenizer_file):
    with pytest.raises(UsageError, match="a tokenizer, expected a transformer"):
        load_transformer(tokenizer_file)
    with pytest.raises(UsageError, match="a transformer, expected a tokenizer"):
        load_tokenizer(TRANSFORMER)
