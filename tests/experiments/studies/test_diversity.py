"""Table 5: precision and recall on another network, against as many real images."""

from tests.experiments.studies.table_doubles import call, results, value


def test_real_features_are_as_many_as_samples(weights, tmp_path, monkeypatch):
    from eval.features.registry import get_extractor
    from eval.metrics.precision_recall import precision_recall
    from experiments.studies.real_images import real_images
    from maskgit.presets import load_preset

    monkeypatch.setenv("MASKGIT_BENCH_CACHE", str(tmp_path / "cache"))
    # The network that is here at once; its shipped reference is not to be found under this name.
    preset = load_preset("embedded")
    from dataclasses import replace

    from tests.presets import register

    register(monkeypatch, tmp_path, replace(preset, reference="none-such"))
    out = tmp_path / "diversity"
    flags = ("--features", "fashion-resnet", "--num-samples", 20, "--T", 1, "--cas-samples", 0)
    assert call("diversity", *flags, out=out, weights=weights) == 0
    result = results(out)[0]
    assert result["protocol"]["real_n"] == 20
    real = real_images(preset, None)
    images, _, _ = real.pick(real.first_of_each([2] * 10))
    extractor = get_extractor("fashion-resnet")
    stage = next((tmp_path / "stages" / "features").glob("*/*.npz"))
    import numpy as np

    generated = np.load(stage)["features"]
    expected = precision_recall(extractor.extract(images).features, generated, k=3)
    assert (value(result, "precision"), value(result, "recall")) == expected
