"""The agreement table: every installed library agrees, and disagreement would be seen."""

import importlib.util
import json
import re
from pathlib import Path

import numpy as np
import pytest

from eval.agreement import __main__ as agreement
from eval.agreement import libraries as agreement_libraries
from eval.agreement.comparisons import compare, comparisons
from eval.agreement.libraries import import_tfgan
from maskgit.common.errors import Unavailable

ALWAYS = {"torch-fidelity", "clean-fid", "scikit-learn", "definition"}
PAGE = Path(__file__).parents[2] / "docs" / "agreement.md"
HAS_TFGAN = importlib.util.find_spec("tensorflow_gan") is not None


@pytest.fixture(scope="module")
def rows():
    return [row for row in agreement.collect(n=200) if row.library != "TF-GAN"]


def test_every_metric_is_held_against_every_library_that_has_it(rows):
    found = {(row.metric.split(",")[0], row.library) for row in rows if row.data == "seeded"}
    assert found >= {
        ("FID", "torch-fidelity"),
        ("FID", "clean-fid"),
        ("IS", "torch-fidelity"),
        ("KID", "torch-fidelity"),
        ("KID", "clean-fid"),
        *((name, by) for name in ("precision", "recall") for by in ALWAYS - {"clean-fid"}),
        ("density", "definition"),
        ("coverage", "definition"),
    }
    assert {row.data for row in rows} == {"seeded", "fashion-resnet", "images"}


def test_all_agree(rows):
    assert [row for row in rows if row.agrees is not True] == []


def test_fid_and_inception_score_agree_within_a_millionth(rows):
    chosen = [row for row in rows if row.metric.startswith(("FID", "IS"))]
    assert len(chosen) == 6
    assert max(row.difference for row in chosen) < 1e-6


def test_precision_recall_density_and_coverage_count_the_same_points(rows):
    chosen = [row for row in rows if ", k=" in row.metric]
    assert len(chosen) == 16
    for row in chosen:
        per_point = 200 * (5 if row.metric.startswith("density") else 1)
        assert round(row.ours * per_point) == round(row.theirs * per_point)
        assert 0 < row.ours != 1  # 0 = 0 and 1 = 1 would say little


def test_clean_fids_scipy_call_works_with_and_without_disp(monkeypatch):
    """scipy 1.18 drops sqrtm(disp=), which clean-fid passes."""
    from scipy import linalg

    real = linalg.sqrtm
    monkeypatch.setattr(linalg, "sqrtm", lambda matrix: real(matrix))  # no disp, as in 1.18
    data = agreement.seeded_set(100)
    value = agreement_libraries.clean_fid_fid(data.real, data.generated)
    assert value == pytest.approx(agreement_libraries.torch_fidelity_fid(data.real, data.generated))
    import cleanfid.fid

    assert cleanfid.fid.linalg is linalg  # put back


def test_clean_fids_draws_leave_numpys_global_generator_alone():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    data = agreement.seeded_set(50)
    agreement_libraries.clean_fid_kid(data.real, data.generated, 20)
    np.testing.assert_array_equal(np.random.get_state()[1], before)  # noqa: NPY002


@pytest.mark.parametrize(
    ("ours", "theirs", "limits", "agrees"),
    [
        (1.0, 1.0 + 2e-6, {}, False),
        (1.0, 1.0 + 5e-7, {}, True),
        (0.0, 0.0, {}, True),
        (1e-9, 0.0, {}, False),
        (0.5, 0.5025, {"absolute": 0.002}, False),
        (0.5, 0.5015, {"absolute": 0.002}, True),
        (float("nan"), 1.0, {}, False),
        (1.0, float("nan"), {"absolute": 0.1}, False),
    ],
)
def test_limits(ours, theirs, limits, agrees):
    assert compare("data", "metric", "definition", ours, lambda: theirs, **limits).agrees is agrees


def test_a_library_that_is_missing_is_named_with_how_to_install_it(monkeypatch, capsys, tmp_path):
    find = importlib.util.find_spec

    def find_spec(name, *arguments):
        return None if name in ("cleanfid", "tensorflow_gan") else find(name, *arguments)

    monkeypatch.setattr(importlib.util, "find_spec", find_spec)
    monkeypatch.setattr(agreement, "collect", lambda path: comparisons(agreement.seeded_set(60)))
    assert agreement.main(["--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["versions"]["clean-fid"] == "not installed (pip install clean-fid)"
    missing = [row for row in result["rows"] if row["library"] in ("clean-fid", "TF-GAN")]
    assert len(missing) == 7
    for row in missing:
        assert row["agrees"] is None
        assert row["theirs"] is None
        assert "not installed (pip install" in row["note"]


def test_a_difference_is_seen_and_is_exit_code_1(monkeypatch, capsys):
    monkeypatch.setattr(agreement_libraries, "torch_fidelity_fid", lambda *_: 1.0)
    monkeypatch.setattr(agreement, "collect", lambda path: comparisons(agreement.seeded_set(60)))
    assert agreement.main([]) == 1
    lines = [line for line in capsys.readouterr().out.splitlines() if "DIFFERS" in line]
    assert len(lines) == 1
    assert "torch-fidelity" in lines[0]


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"real": np.ones((30, 4))}, "no array 'generated'"),
        ({"real": np.ones((30, 4)), "generated": np.ones((30, 5))}, "4 columns and generated 5"),
        ({"real": np.ones((30, 1)), "generated": np.ones((30, 1))}, "at least 2"),
        ({"real": np.ones((5, 4)), "generated": np.ones((30, 4))}, "real: 5 rows, at least 20"),
        (
            {"real": np.full((30, 4), np.nan), "generated": np.ones((30, 4))},
            "120 values are NaN",
        ),
    ],
)
def test_features_that_do_not_fit_are_refused_in_one_line(tmp_path, capsys, arrays, says):
    path = tmp_path / "features.npz"
    np.savez(path, **arrays)
    assert agreement.main(["--features-npz", str(path), "--out", str(tmp_path / "x.md")]) == 2
    error = capsys.readouterr().err
    assert re.search(says, error)
    assert error.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["features.npz"]


def test_broken_file_and_missing_folder_are_refused(tmp_path, capsys):
    path = tmp_path / "features.npz"
    path.write_bytes(b"no zip")
    assert agreement.main(["--features-npz", str(path)]) == 2
    assert "not a readable npz" in capsys.readouterr().err
    assert agreement.main(["--out", str(tmp_path / "no" / "x.md")]) == 2
    assert "does not exist" in capsys.readouterr().err


def test_features_of_a_file_are_compared_and_written_down(tmp_path, monkeypatch, capsys):
    rng = np.random.default_rng(1)
    path, out = tmp_path / "mine.npz", tmp_path / "page.md"
    np.savez(path, real=rng.normal(size=(60, 8)), generated=rng.normal(0.3, 1, (50, 8)))
    monkeypatch.setattr(agreement, "collect", lambda file: comparisons(agreement.read_set(file)))
    assert agreement.main(["--features-npz", str(path), "--out", str(out)]) == 0
    capsys.readouterr()
    page = out.read_text()
    assert f"--features-npz {path} --out {out}" in page
    assert page.count("| mine.npz |") == 16  # no logits, no Inception Score
    assert page.count("agrees") + page.count("not installed (") >= 16


@pytest.mark.slow
def test_the_committed_page_is_what_the_command_gives():
    """Numbers, not versions: a metric that moves makes the page stale."""
    committed = [
        [cell.strip() for cell in line.strip("|\n").split("|")]
        for line in PAGE.read_text().splitlines()
        if line.startswith("| ")
    ]
    assert committed[0] == list(agreement.HEADER)
    rows = list(agreement.collect())
    assert [row[:3] for row in committed[1:]] == [[r.data, r.metric, r.library] for r in rows]
    assert not any("DIFFERS" in row[-1] or "not installed" in row[-1] for row in committed)
    for row, line in zip(rows, committed[1:], strict=True):
        if row.ours is not None:
            assert row.ours == pytest.approx(float(line[3]), rel=1e-6)


@pytest.mark.tf
@pytest.mark.skipif(not HAS_TFGAN, reason="tensorflow-gan is not installed (extra tfgan)")
class TestTFGAN:
    def test_fid_score_and_kid_agree(self):
        rows = [r for r in comparisons(agreement.seeded_set(200)) if r.library == "TF-GAN"]
        assert [r.metric.split(",")[0] for r in rows] == ["FID", "IS", "KID", "KID"]
        assert [r for r in rows if r.agrees is not True] == []
        exact = [r for r in rows if "subsets" not in r.metric]
        assert max(r.difference for r in exact) < 1e-6

    def test_placeholders_serve_as_bases_and_defaults_and_hide_nothing_else(self):
        gan = import_tfgan()
        assert gan is import_tfgan()
        import tensorflow as tf

        assert isinstance(tf.estimator.SessionRunHook, type)
        assert tf.estimator.SessionRunHook is tf.estimator.SessionRunHook
        with pytest.raises(AttributeError):
            getattr(tf.estimator, "__no_such_thing__")  # noqa: B009


def test_without_tensorflow_tfgan_says_how_to_get_it(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, *rest: None if name == "tensorflow" else find(name, *rest),
    )
    with pytest.raises(Unavailable, match=r"tensorflow.*not installed.*maskgit-bench\[tfgan\]"):
        import_tfgan()
