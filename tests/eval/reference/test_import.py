"""Published statistics: imported as references, or refused."""

from types import SimpleNamespace

import numpy as np
import pytest

from eval.reference import build as reference_build
from eval.reference.build import import_statistics
from eval.reference.files import load_reference
from eval.reference.verify import verify_reference
from maskgit.common.errors import Unavailable, UsageError


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MASKGIT_BENCH_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "references"


@pytest.fixture
def small(monkeypatch):
    """Pretend that Inception has 32 features: 2048 take seconds, and nothing else changes."""
    monkeypatch.setattr(reference_build, "extractor_class", lambda name: SimpleNamespace(dim=32))


@pytest.fixture
def published(tmp_path, small):
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(30, 32)).astype(np.float32)
    path = tmp_path / "VIRTUAL_x.npz"
    np.savez(path, mu=rows.mean(0), sigma=np.cov(rows, rowvar=False), mu_s=np.zeros(3))
    return path, rows


def test_published_statistics_become_a_reference_without_features(published):
    path, rows = published
    reference = import_statistics("adm", path, "imagenet", n=1281167)
    assert (reference.extractor, reference.n) == ("inception-v3-compat", 1281167)
    np.testing.assert_allclose(reference.mean, rows.mean(0), rtol=1e-6)
    again = load_reference("imagenet", "inception-v3-compat")  # no weights needed, none are known
    assert again.sha256 == reference.sha256
    assert "ADM's reference batch" in reference.description
    assert reference.protocol["imported"] == "adm"
    with pytest.raises(
        Unavailable, match=r"kid needs features .* imagenet has mean and covariance"
    ):
        reference.kept_features("kid")
    clean = import_statistics("clean-fid", path, "x")
    assert clean.extractor == "inception-v3-clean"
    assert "not compared" in list(verify_reference("x", "inception-v3-clean"))[-1]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"mu": None}, "has sigma, expected mu and sigma"),
        ({"mu": None, "arr_0": np.zeros(3)}, "it has images: python -m eval.reference build"),
        ({"mu": np.zeros(64)}, r"mu \(64,\) .* inception-v3-compat has 32 features"),
        ({"sigma": -np.eye(32)}, "sigma is no covariance"),
        ({"sigma": np.full((32, 32), np.nan)}, "sigma is no covariance"),
        ({"mu": np.full(32, "x")}, "are no numbers"),
    ],
)
def test_files_that_hold_no_statistics_are_refused(tmp_path, cache, small, change, says):
    arrays = {"mu": np.zeros(32), "sigma": np.eye(32), **change}
    np.savez(tmp_path / "p.npz", **{k: v for k, v in arrays.items() if v is not None})
    with pytest.raises(UsageError, match=says):
        import_statistics("adm", tmp_path / "p.npz", "x")
    assert not cache.exists()


def test_imports_name_the_networks_a_publisher_uses(published, tmp_path):
    with pytest.raises(UsageError, match="adm publishes for inception-v3-compat or inception-tf"):
        import_statistics("adm", published[0], "x", "vgg16")
    with pytest.raises(UsageError, match="'edm': expected one of adm, clean-fid"):
        import_statistics("edm", published[0], "x")
    with pytest.raises(UsageError, match="not a readable npz"):
        import_statistics("adm", tmp_path / "nowhere.npz", "x")
