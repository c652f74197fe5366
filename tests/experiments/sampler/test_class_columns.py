"""A classifier's outputs are matched with a preset's classes by names, never by their number."""

from types import SimpleNamespace

import numpy as np
import pytest
from torchvision.models import ResNet50_Weights

from eval.features.registry import EXTRACTORS, extractor_class
from experiments.sampler.feature_networks import class_columns
from experiments.sampler.worker import Worker
from maskgit.common.class_lists import CLASS_LISTS
from maskgit.common.errors import Unavailable, UsageError
from maskgit.data.image_folder import check_class_folders
from maskgit.presets import load_preset


def test_the_names_of_imagenet_are_torchvisions_in_their_order():
    found = CLASS_LISTS["imagenet"]()
    assert list(found.names) == ResNet50_Weights.IMAGENET1K_V1.meta["categories"]
    assert len(set(found.names)) == len(set(found.folders)) == 1000
    assert list(found.folders) == sorted(found.folders)  # as ImageFolder numbers them
    assert (found.folders[0], found.folders[-1]) == ("n01440764", "n15075141")
    assert load_preset("imagenet256").class_names == found.names


def test_a_network_knows_as_many_names_as_it_has_logits():
    for name in EXTRACTORS:
        network = extractor_class(name)
        if network.class_list:
            assert len(CLASS_LISTS[network.class_list]().names) == network.num_logits


def test_columns_follow_the_names():
    known = SimpleNamespace(name="net", class_names=("hen", "cat", "dog"))
    preset = SimpleNamespace(name="own", class_names=("dog", "hen"))
    assert class_columns(known, preset).tolist() == [2, 0]
    preset = SimpleNamespace(name="own", class_names=("dog", "cow", "hen"))  # as many, others
    with pytest.raises(Unavailable, match="net does not know the class 'cow' of preset own"):
        class_columns(known, preset)


@pytest.mark.parametrize(("preset", "missing"), [("imagenet256", False), ("embedded", True)])
def test_resnet50_names_imagenet_s_classes_and_no_others(preset, missing):
    logits = np.random.default_rng(0).normal(size=(3, 1000)).astype(np.float32)
    network = SimpleNamespace(
        name="resnet50",
        class_names=CLASS_LISTS["imagenet"]().names,
        extract_batches=lambda batches: SimpleNamespace(logits=logits),
    )
    resources = SimpleNamespace(preset=load_preset(preset), features={})
    worker = Worker(resources, None)
    worker.extractor = lambda name: network
    told, why = worker.classify("resnet50", [])
    if missing:
        assert told is None
        assert "does not know the class 'T-shirt'" in why
    else:
        expected = np.exp(logits.astype(np.float64))
        assert np.allclose(told, expected / expected.sum(axis=1, keepdims=True))


def test_folders_of_other_classes_are_refused():
    preset = load_preset("imagenet256")
    folders = list(preset.class_folders)
    check_class_folders(SimpleNamespace(name="train", classes=folders), preset)
    folders[7] = "n99999999"
    with pytest.raises(UsageError, match=r"no folder n01514668 of class 7 \(cock\), but n99999999"):
        check_class_folders(SimpleNamespace(name="train", classes=folders), preset)


def test_another_number_of_classes_has_no_list(tmp_path):
    text = 'base = "imagenet256"\n[data]\nnum_classes = 7\nclass_list = ""\n'
    (tmp_path / "own.toml").write_text(text)
    preset = load_preset(tmp_path / "own.toml")
    assert preset.class_folders == ()
    assert preset.class_names == tuple(f"class {i}" for i in range(7))
