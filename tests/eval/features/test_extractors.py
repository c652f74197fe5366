"""Each extractor against the library whose protocol it states, on random weights in the real
file format: the same features for grey and RGB images of several sizes."""

import functools
import importlib.util
import json
import tarfile
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch

import eval.features.dinov2
from eval.features.dinov2 import DINOv2
from eval.features.registry import EXTRACTORS, extractor_class, get_extractor
from eval.features.tensorflow_resize import resize_bilinear_tf1
from eval.weights.files import SOURCES
from maskgit.common.errors import Unavailable, UsageError
from maskgit.common.files import sha256_of
from tests.paths import GOLDEN


def images(height: int, width: int, channels: int, count: int = 2, seed: int = 0) -> np.ndarray:
    """Smooth shapes with noise on them and saturated edges, uint8 (n, H, W, C)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / 16
    phase = rng.uniform(0, 6, (count, 1, 1, channels))
    waves = 100 + 300 * np.sin(x[..., None] + phase) * np.cos(y[..., None] - phase)
    return (waves + rng.integers(0, 60, waves.shape)).clip(0, 255).astype(np.uint8)


SIZES = [(32, 32, 1), (40, 70, 3), (299, 299, 3), (320, 310, 3)]


def planar(batch: np.ndarray) -> torch.Tensor:
    """uint8 (n, H, W, C) -> uint8 (n, 3, H, W), what the libraries take."""
    colour = np.repeat(batch, 3, axis=3) if batch.shape[3] == 1 else batch
    return torch.from_numpy(colour).permute(0, 3, 1, 2).contiguous()


def assert_close(got: np.ndarray, expected: np.ndarray, tolerance: float = 1e-6) -> None:
    """Equal up to `tolerance` of the largest value."""
    assert got.shape == expected.shape
    assert np.isfinite(expected).all()
    assert np.ptp(expected) > 0
    assert np.abs(got - expected).max() <= tolerance * np.abs(expected).max()


def randomise(module: torch.nn.Module, seed: int) -> dict[str, torch.Tensor]:
    """Weights that keep activations of order one through many layers (He et al. 2015)."""
    generator = torch.Generator().manual_seed(seed)
    for name, value in module.state_dict().items():
        if value.ndim > 1:
            fan_in = value[0].numel()
            value.normal_(0, (2 / fan_in) ** 0.5, generator=generator)
        elif name.endswith("running_var"):
            value.uniform_(0.8, 1.2, generator=generator)
        elif value.is_floating_point():
            value.normal_(name.endswith("bn.weight"), 0.1, generator=generator)
    return module.state_dict()


@pytest.fixture(scope="module")
def inception_folder(tmp_path_factory):
    """A folder with random weights as torch-fidelity's file holds them."""
    from torch_fidelity import feature_extractor_inceptionv3 as fidelity

    folder = tmp_path_factory.mktemp("inception")
    path = folder / SOURCES["inception-v3-compat"].file
    with pytest.MonkeyPatch.context() as patch:  # its constructor wants a file: give it none
        patch.setattr(fidelity, "load_state_dict_from_url", lambda *_, **__: {})
        patch.setattr(fidelity.FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
        model = fidelity.FeatureExtractorInceptionV3("x", ["2048"])
    torch.save(randomise(model, 0), path)
    yield folder
    path.unlink()


def test_inception_compat_is_torch_fidelitys(inception_folder):
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    path = inception_folder / SOURCES["inception-v3-compat"].file
    oracle = FeatureExtractorInceptionV3("x", ["2048", "logits_unbiased"], str(path))
    extractor = get_extractor("inception-v3-compat", inception_folder)
    assert extractor.weights_sha256 == sha256_of(path)
    assert extractor.protocol["weights"].endswith("6726825d.pth (not the published file)")
    extractor.chunk = 2  # 8 is for speed on many images
    batches = [images(*size, count=1, seed=i) for i, size in enumerate(SIZES)]
    got = extractor.extract_batches(batches)
    with torch.inference_mode():
        expected = [oracle(planar(batch)) for batch in batches]
    assert_close(got.features, np.concatenate([features for features, _ in expected]))
    assert_close(got.logits, np.concatenate([logits for _, logits in expected]))
    alone = extractor.extract(batches[1])
    np.testing.assert_array_equal(alone.features[0], got.features[1])


@pytest.mark.parametrize("name", ["inception-v3-compat", "vgg16", "dinov2-vit-l-14"])
def test_another_networks_weights_are_one_clear_line(tmp_path, name):
    path = tmp_path / SOURCES[name].file
    for content in ({"conv.weight": torch.zeros(1)}, [torch.zeros(1)]):
        torch.save(content, path)
        with pytest.raises(UsageError, match=f"not weights of {name}") as caught:
            get_extractor(name, tmp_path)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "package", "says"),
    [
        ("inception-tfgan", "tensorflow", r"extra `tfgan`: pip install 'maskgit-bench\[tfgan\]'"),
    ],
)
def test_a_missing_package_is_unavailable_and_says_what_to_install(
    monkeypatch, name, package, says
):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda n: None if n == package else find(n))
    with pytest.raises(Unavailable, match=says):
        get_extractor(name)


class Runs:
    """An object whose unpickling would write a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["inception-v3-compat", "vgg16", "dinov2-vit-l-14"])
def test_a_weights_file_cannot_run_code(tmp_path, name):
    torch.save({"conv.weight": Runs(tmp_path / "ran")}, tmp_path / SOURCES[name].file)
    with pytest.raises(UsageError, match="not weights of"):
        get_extractor(name, tmp_path)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("side", [224, 299])
def test_resizing_as_tensorflow_1_is_torch_fidelitys_to_the_bit(size, side):
    from torch_fidelity.interpolate_compat_tensorflow import (
        interpolate_bilinear_2d_like_tensorflow1x,
    )

    batch = planar(images(*size)).float()
    expected = interpolate_bilinear_2d_like_tensorflow1x(batch, (side, side), align_corners=False)
    assert torch.equal(resize_bilinear_tf1(batch, side), expected)


class TorchScriptNet(torch.nn.Module):
    """A small network in the form of the file that clean-fid runs."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(
            torch.nn.Conv2d(3, 16, 9, 9),
            torch.nn.ReLU(),
            torch.nn.AdaptiveAvgPool2d(1),
            torch.nn.Conv2d(16, 2048, 1),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


def test_inception_clean_is_clean_fids(tmp_path):
    from cleanfid.inception_torchscript import InceptionV3W
    from cleanfid.resize import build_resizer

    net = TorchScriptNet()
    randomise(net, 1)
    torch.jit.script(net).save(str(tmp_path / "inception-2015-12-05.pt"))
    oracle = InceptionV3W(str(tmp_path), download=False)
    extractor = get_extractor("inception-v3-clean", tmp_path)
    resize = build_resizer("clean")
    for size in SIZES:
        batch = images(*size)
        got = extractor.extract(batch)
        resized = np.stack([resize(image) for image in planar(batch).permute(0, 2, 3, 1).numpy()])
        with torch.inference_mode():
            expected = oracle(torch.from_numpy(resized).permute(0, 3, 1, 2)).numpy()
        assert_close(got.features, expected)
        assert got.logits.shape == (2, 0)
    (tmp_path / "inception-2015-12-05.pt").write_bytes(b"no script")
    with pytest.raises(UsageError, match="not weights of inception-v3-clean"):
        get_extractor("inception-v3-clean", tmp_path)


@pytest.mark.slow
def test_vgg16_is_torch_fidelitys(tmp_path):
    import torchvision.models
    from torch_fidelity.feature_extractor_vgg16 import FeatureExtractorVGG16

    path = tmp_path / SOURCES["vgg16"].file
    torch.save(randomise(torchvision.models.vgg16(), 2), path)
    oracle = FeatureExtractorVGG16("x", ["fc2_relu"], str(path))
    extractor = get_extractor("vgg16", tmp_path)
    extractor.chunk = 2
    for size in SIZES:
        batch = images(*size)
        with torch.inference_mode():
            (expected,) = oracle(planar(batch))
        assert_close(extractor.extract(batch).features, expected.numpy())
    path.unlink()


def dinov2_state(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The weights behind tests/golden/dinov2_tiny.npz: numpy's frozen stream, names sorted."""
    rng = np.random.RandomState(0)
    state = {}
    for name, value in sorted(model.state_dict().items()):
        values = rng.standard_normal(tuple(value.shape)).astype(np.float32) * 0.2
        if name.endswith(("norm1.weight", "norm2.weight", "norm.weight", "gamma")):
            values += 1
        state[name] = torch.from_numpy(values)
    return state


def test_dinov2_is_the_official_network():
    """Golden: facebookresearch/dinov2 b8931f7, DinoVisionTransformer of width 32, depth 3, 4
    heads, at 224 px (position embeddings resized) and 518 px (not)."""
    golden = np.load(GOLDEN / "dinov2_tiny.npz")
    model = DINOv2(32, 3, 4).eval()
    model.load_state_dict(dinov2_state(model))
    for seed, count, side in ((1, 2, 224), (2, 1, 518)):
        pixels = np.random.RandomState(seed).standard_normal((count, 3, side, side))
        with torch.inference_mode():
            got = model(torch.from_numpy(pixels.astype(np.float32))).numpy()
        assert_close(got, golden[f"tokens{side}"], 1e-5)


def test_dinov2_vit_l_has_the_official_names_and_shapes():
    expected = json.loads((GOLDEN / "dinov2_vitl14_shapes.json").read_text())
    with torch.device("meta"):
        model = DINOv2()
    assert {name: list(value.shape) for name, value in model.state_dict().items()} == expected


def test_dinov2_resizes_and_normalises_as_dgm_eval(tmp_path, monkeypatch):
    from torchvision import transforms

    tiny = functools.partial(DINOv2, 32, 3, 4)
    monkeypatch.setattr(eval.features.dinov2, "DINOv2", tiny)
    model = tiny().eval()
    model.load_state_dict(dinov2_state(model))
    torch.save(model.state_dict(), tmp_path / "dinov2_vitl14_pretrain.pth")
    extractor = get_extractor("dinov2-vit-l-14", tmp_path)
    steps = transforms.Compose(
        [
            transforms.Resize((224, 224), transforms.InterpolationMode.BICUBIC),
            transforms.ToTensor(),
            transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
    for size in SIZES:
        batch = images(*size)
        colour = planar(batch).permute(0, 2, 3, 1).numpy()
        inputs = torch.stack([steps(PIL.Image.fromarray(image)) for image in colour])
        with torch.inference_mode():
            assert_close(extractor.extract(batch).features, model(inputs).numpy(), 1e-5)


@pytest.mark.tf
def test_tfgan_module_is_run_as_tf_gan_runs_it(tmp_path):
    tf = pytest.importorskip("tensorflow")

    class Module(tf.Module):
        """In the form of TF-GAN's module on TensorFlow Hub: images in, a dictionary out."""

        def __init__(self) -> None:
            super().__init__()
            self.kernel = tf.Variable(tf.random.stateless_normal((3, 2048), (0, 1)))

        @tf.function(input_signature=[tf.TensorSpec((None, None, None, 3), tf.float32)])
        def __call__(self, images):
            pooled = tf.reduce_mean(tf.abs(images[:, 3::7, ::5]), (1, 2)) @ self.kernel
            return {"pool_3": pooled[:, None, None], "logits": pooled[:, :1008] * 2}

    module = Module()
    tf.saved_model.save(module, str(tmp_path / "module"))
    with tarfile.open(tmp_path / SOURCES["inception-tfgan"].file, "w:gz") as archive:
        for path in sorted((tmp_path / "module").iterdir()):
            archive.add(path, path.name)
    extractor = get_extractor("inception-tfgan", tmp_path)
    for size in SIZES:
        batch = images(*size)
        colour = planar(batch).permute(0, 2, 3, 1).numpy()
        resized = tf.image.resize(colour / np.float32(127.5) - 1, [299, 299], method="bilinear")
        expected = module(resized)
        got = extractor.extract(batch)
        assert_close(got.features, expected["pool_3"].numpy()[:, 0, 0], 1e-5)
        assert_close(got.logits, expected["logits"].numpy(), 1e-5)


def test_info_needs_no_weights_and_agrees_with_the_loaded_extractor(inception_folder):
    for name in EXTRACTORS:
        info = extractor_class(name)
        protocol = json.loads(json.dumps(info.describe()))
        assert protocol["features"] == info.name == name
        assert (protocol["dim"], protocol["num_logits"]) == (info.dim, info.num_logits)
        assert {"input", "resize", "image_size", "layer"} <= protocol.keys()
    info = extractor_class("inception-v3-compat")
    loaded = get_extractor("inception-v3-compat", inception_folder)
    assert info.describe().items() <= loaded.protocol.items()
    assert (info.dim, info.num_logits) == (2048, 1008)
    with pytest.raises(UsageError, match="'inception': expected one of"):
        extractor_class("inception")
