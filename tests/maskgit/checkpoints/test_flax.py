"""The official format: other sizes than the tiny ones, flax's less common encodings, writing."""

import contextlib
import subprocess
import sys

import msgpack
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from maskgit.checkpoints import load_tokenizer, load_transformer
from maskgit.checkpoints.flax import write_flax
from maskgit.checkpoints.layout import official_arrays
from maskgit.common.errors import UsageError
from maskgit.model.config import TokenizerConfig, TransformerConfig
from maskgit.model.tokenizer import Tokenizer
from maskgit.model.transformer import Transformer
from maskgit.presets import load_preset
from tests.maskgit.official_writer import write_official_weights
from tests.paths import GOLDEN

TRANSFORMER = GOLDEN / "maskgit_other_checkpoint"
TOKENIZER = GOLDEN / "tokenizer_other_checkpoint"


def test_official_logits_with_other_sizes():
    golden = np.load(GOLDEN / "maskgit_other.npz")
    model = load_transformer(TRANSFORMER, num_codes=int(golden["num_codes"]))
    assert model.config == TransformerConfig(20, 7, 9, width=48, layers=3, heads=3, mlp=80)
    tokens = torch.from_numpy(golden["input_ids"].astype(np.int64))
    with torch.no_grad():
        np.testing.assert_allclose(model(tokens), golden["logits"], atol=1e-4, rtol=0)


def test_official_tokenizer_with_other_sizes_and_half_precision():
    golden = np.load(GOLDEN / "tokenizer_other.npz")
    tokenizer = load_tokenizer(TOKENIZER)
    assert tokenizer.config == TokenizerConfig(
        filters=32, multipliers=(2, 1), blocks=2, num_codes=24, code_dim=12
    )
    images = torch.from_numpy(golden["image"]).permute(0, 3, 1, 2).contiguous()
    with torch.no_grad():
        features = tokenizer.encoder(images).permute(0, 2, 3, 1)
        np.testing.assert_allclose(features, golden["encoder_output"], atol=1e-4, rtol=0)
        np.testing.assert_array_equal(tokenizer.encode(images), golden["indices"])
        indices = torch.from_numpy(golden["indices"].astype(np.int64))
        images = tokenizer.decode(indices).permute(0, 2, 3, 1)
        np.testing.assert_allclose(images, golden["reconstruction"], atol=1e-3, rtol=0)


def unpack(path):
    def array(code, data):
        shape, dtype, content = msgpack.unpackb(data)
        return np.frombuffer(content, dtype).reshape(shape)

    return msgpack.unpackb(path.read_bytes(), ext_hook=array)


def pack(tree):
    """As flax.serialization does it, with its three extension types."""

    def extension(value):
        if isinstance(value, complex):
            return msgpack.ExtType(2, msgpack.packb((value.real, value.imag)))
        array = np.asarray(value)
        content = msgpack.packb((array.shape, array.dtype.name, array.tobytes()))
        return msgpack.ExtType(3 if isinstance(value, np.generic) else 1, content)

    return msgpack.packb(tree, default=extension, strict_types=True)


def map_leaves(tree, change):
    return {
        key: map_leaves(value, change) if isinstance(value, dict) else change(value)
        for key, value in tree.items()
    }


def chunked(array, size=100):
    """An array as flax writes it above MAX_CHUNK_SIZE, here with a small one."""
    flat = array.reshape(-1)
    parts = [flat[i : i + size] for i in range(0, flat.size, size)]
    return {
        "__msgpack_chunked_array__": True,
        "shape": {str(i): side for i, side in enumerate(array.shape)},
        "chunks": {str(i): part for i, part in enumerate(parts)},
    }


def load_packed(path, tree):
    path.write_bytes(pack(tree))
    return load_transformer(path, num_codes=20).state_dict()


def test_arrays_in_chunks_and_other_keys_beside_the_weights(tmp_path):
    expected = load_transformer(TRANSFORMER, num_codes=20).state_dict()
    params = unpack(TRANSFORMER)["params"]
    more = {
        "step": np.int64(7),
        "opt_state": {"mu": params, "count": np.arange(3, dtype="i4"), "flag": np.array([True])},
        "a": 1 + 2j,
        "ema_params": params,
        "list": [1, None, "x", 2.5],
    }
    trees = [
        {"params": map_leaves(params, chunked)},
        {**more, "params": params},
        {"params": params, **more},
    ]
    for tree in trees:
        state = load_packed(tmp_path / "file", tree)
        assert all(torch.equal(state[name], tensor) for name, tensor in expected.items())


def test_bfloat16_double_and_half_leaves(tmp_path):
    expected = load_transformer(TRANSFORMER, num_codes=20).state_dict()
    params = unpack(TRANSFORMER)["params"]

    def bfloat16(array):
        rounded = torch.from_numpy(array.copy()).to(torch.bfloat16).view(torch.int16).numpy()
        return msgpack.ExtType(1, msgpack.packb((array.shape, "bfloat16", rounded.tobytes())))

    changes = {
        torch.bfloat16: bfloat16,
        torch.float16: lambda array: array.astype("f2"),
        torch.float64: lambda array: array.astype("f8"),
    }
    for dtype, change in changes.items():
        state = load_packed(tmp_path / "file", {"params": map_leaves(params, change)})
        for name, tensor in expected.items():
            assert torch.equal(state[name], tensor.to(dtype).float()), (dtype, name)


@pytest.mark.parametrize(
    ("leaf", "message"),
    [
        (np.float32(2), r"Extra of shape \(\) has no place"),
        (1 + 2j, r"Extra is no array \(complex\)"),
        (None, r"Extra is no array \(NoneType\)"),
        ([1.0], r"Extra is no array \(list\)"),
        (np.zeros(2, "c8"), "Extra has type complex64, expected floating-point"),
        (np.zeros(2, "?"), "Extra has type bool, expected floating-point"),
    ],
)
def test_leaves_that_are_no_weights_are_named(tmp_path, leaf, message):
    tree = unpack(TRANSFORMER)
    tree["params"]["Extra"] = leaf
    with pytest.raises(UsageError, match=message):
        load_packed(tmp_path / "file", tree)


def raw_map(*pairs):
    return bytes([0x80 + len(pairs)]) + b"".join(key + value for key, value in pairs)


def raw_array(shape, dtype, size):
    return msgpack.ExtType(1, msgpack.packb((shape, dtype, b"0" * size)))


WHOLE = msgpack.packb("params"), pack({"a": np.zeros(1, "f4")})
STRING = msgpack.packb("a")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (raw_map(WHOLE) + b"\x00", "1 bytes follow its end"),
        (raw_map(WHOLE, WHOLE), "two `params`"),
        (raw_map((WHOLE[0], raw_map((STRING, b"\x01"), (STRING, b"\x02")))), "same key twice"),
        (raw_map((WHOLE[0], WHOLE[1][:-3])), "ends too early"),
        (raw_map((STRING, b"\x01")), "no `params` at the top"),
        (
            pack({"params": {"a": {"__msgpack_chunked_array__": True, "shape": {}}}}),
            "not a whole flax checkpoint",
        ),
        (pack({"params": {"a": raw_array([9], "float32", 4)}}), "not a whole flax checkpoint"),
        (pack({"params": {"a": raw_array([1], "object", 8)}}), "an array of type 'object'"),
    ],
)
def test_malformed_files_are_one_line(tmp_path, content, message):
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(UsageError, match=message) as caught:
        load_transformer(tmp_path / "file")
    assert "\n" not in str(caught.value)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_truncation_and_any_flipped_byte_is_a_usage_error_or_loads(tmp_path_factory, data):
    """Never a traceback: a flip inside the numbers cannot be seen, everything else is refused."""
    content = bytearray(TRANSFORMER.read_bytes())
    file = tmp_path_factory.mktemp("flax") / "file"
    if data.draw(st.booleans()):
        file.write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
        with pytest.raises(UsageError):
            load_transformer(file, num_codes=20)
        return
    # The first kilobytes hold most names and headers.
    place = data.draw(st.integers(0, 4000) | st.integers(0, len(content) - 1))
    content[place] ^= 1 << data.draw(st.integers(0, 7))
    file.write_bytes(content)
    with contextlib.suppress(UsageError):
        load_transformer(file, num_codes=20)


transformers = st.builds(
    lambda codes, classes, tokens, heads, per_head, layers, mlp: TransformerConfig(
        codes, classes, tokens, width=heads * per_head, layers=layers, heads=heads, mlp=mlp
    ),
    *[st.integers(1, 6)] * 5,
    st.integers(1, 11),
    st.integers(1, 6),
)
tokenizers = st.builds(
    lambda channels, multipliers, blocks, codes, dim: TokenizerConfig(
        channels, 32, tuple(multipliers), blocks, codes, dim
    ),
    st.integers(1, 4),
    st.lists(st.integers(1, 2), min_size=1, max_size=3),
    st.integers(1, 2),
    st.integers(1, 5),
    st.integers(1, 5),
)


@settings(max_examples=25, deadline=None)
@given(config=transformers | tokenizers)
def test_what_is_written_reads_back_and_every_array_is_used_once(tmp_path_factory, config):
    file = tmp_path_factory.mktemp("flax") / "file"
    model = Transformer(config) if isinstance(config, TransformerConfig) else Tokenizer(config)
    for parameter in model.parameters():  # also those that start at 0 or 1
        torch.nn.init.normal_(parameter)
    places = [array.data_ptr() for array in official_arrays(model).values()]
    assert len(set(places)) == len(places)
    sizes = (
        sum(x.numel() for x in many)
        for many in (official_arrays(model).values(), model.parameters())
    )
    assert len(set(sizes)) == 1
    write_flax(file, model)
    if isinstance(config, TransformerConfig):
        back = load_transformer(file, num_codes=config.num_codes)
    else:
        back = load_tokenizer(file)
    assert back.config == config
    for name, tensor in model.state_dict().items():
        assert torch.equal(back.state_dict()[name], tensor), name


@pytest.mark.parametrize("name", ["maskgit_tiny_checkpoint", "maskgit_other_checkpoint"])
def test_the_official_bytes_come_back(tmp_path, name):
    write_flax(tmp_path / "file", load_transformer(GOLDEN / name))
    assert (tmp_path / "file").read_bytes() == (GOLDEN / name).read_bytes()


def test_other_group_norms_have_no_official_file(tmp_path):
    config = TokenizerConfig(1, 8, (1,), 1, 4, 2, norm_groups=4)
    with pytest.raises(UsageError, match="this tokenizer has 4"):
        write_flax(tmp_path / "file", Tokenizer(config))
    assert not list(tmp_path.iterdir())


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    def full_disk(*_):
        raise OSError("no space left")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OSError, match="no space left"):
        write_flax(tmp_path / "file", load_transformer(TRANSFORMER))
    assert not list(tmp_path.iterdir())


def test_widths_without_32_groups_are_named(tmp_path):
    tree = map_leaves(unpack(TOKENIZER), lambda array: array)
    tree["params"]["encoder"]["Conv_0"]["kernel"] = np.zeros((3, 3, 3, 8), "f4")
    (tmp_path / "file").write_bytes(pack(tree))
    with pytest.raises(UsageError, match=r"widths \[8, 64, 32\]: expected multiples of 32"):
        load_tokenizer(tmp_path / "file")


PEAK = """
import resource, sys
from maskgit.checkpoints import load_tokenizer, load_transformer
load = load_tokenizer if "tokenizer" in sys.argv[1] else load_transformer
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
before = peak()
model = load(sys.argv[1])
weights = sum(parameter.numel() for parameter in model.parameters()) * 4
print(before, peak(), weights)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss is in kilobytes on Linux only")
def test_full_size_files_load_in_little_more_memory_than_their_weights(tmp_path):
    preset = load_preset("imagenet256")
    write_official_weights(preset, tmp_path)
    for name, parameters in (("transformer", 172_457_193), ("tokenizer", 54_515_587)):
        file = tmp_path / preset.official[name]
        done = subprocess.run(
            [sys.executable, "-c", PEAK, str(file)], capture_output=True, text=True, check=True
        )
        before, peak, weights = map(int, done.stdout.split())
        assert weights == 4 * parameters
        assert peak - before < 1.3 * weights + 100e6, name
