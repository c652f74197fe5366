"""`python -m eval`: its numbers are those of the functions; a mistake is one line, exit code 2."""

import io
import json
import subprocess
import sys
import time

import numpy as np
import PIL.Image
import pytest

from eval.__main__ import main
from eval.evaluate import Options, evaluate
from eval.metrics.fid import frechet_distance
from eval.metrics.inception_score import inception_score
from eval.metrics.kid import kernel_distance, standard_error
from eval.metrics.precision_recall import precision_recall
from eval.metrics.registry import parse_metrics
from eval.metrics.statistics import Statistics
from eval.reference.files import load_reference


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MASKGIT_BENCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Noisy boxes of some kinds: 60 as an npz and as a folder, 50 as an npy."""
    folder = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    images = rng.integers(0, 60, (110, 32, 32, 1), dtype=np.uint8)
    for i in range(110):
        images[i, 5 + i % 7 : 28, 4 + i % 5 : 20 + i % 9] += 150
    np.savez(folder / "a.npz", images[:60])
    np.save(folder / "b.npy", images[60:])
    for i in range(60):
        path = folder / "a" / f"class{i // 10}" / f"{i:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(images[i, ..., 0]).save(path)
    return folder, images[:60], images[60:]


def run_json(capsys, *arguments):
    code = main([*map(str, arguments), "--json", "--device", "cpu"])
    captured = capsys.readouterr()
    assert code == 0, captured.err
    return json.loads(captured.out)


def test_json_has_the_numbers_of_the_functions_and_their_protocol(files, capsys, resnet):
    folder, a, b = files
    result = run_json(capsys, folder / "a.npz", "--reference", folder / "b.npy")
    fake, logits = resnet.extract(a)
    real = resnet.extract(b).features
    x, y = Statistics.of(real), Statistics.of(fake)
    metrics = result["metrics"]
    assert metrics["fid"]["value"] == frechet_distance(x.mean, x.cov, y.mean, y.cov)
    ten = metrics["is-10-splits"]
    assert (ten["value"], ten["sd"]) == inception_score(logits, 10)
    assert metrics["is"]["value"] == inception_score(logits, 1)[0]
    assert (metrics["kid"]["value"], metrics["kid"]["sd"]) == kernel_distance(real, fake)
    assert metrics["kid"]["error"] == standard_error(real, fake)[0]
    pair = metrics["precision"]["value"], metrics["recall"]["value"]
    assert pair == precision_recall(real, fake)
    assert metrics["recall"]["id"] == "recall.fashion-resnet.v1.real-50"  # against 60 samples
    protocol = result["protocol"]
    assert (protocol["n"], protocol["reference_n"], protocol["kid_subset_size"]) == (60, 50, 50)
    assert protocol["weights_sha256"] == resnet.weights_sha256


def test_a_folder_gives_the_numbers_of_the_array_whatever_the_batch_size(
    files, capsys, tmp_path, monkeypatch
):
    folder = files[0]
    other = "--reference", folder / "b.npy"
    expected = run_json(capsys, folder / "a.npz", *other)
    for batch_size in (7, 1000):
        monkeypatch.setenv("MASKGIT_BENCH_CACHE", str(tmp_path / str(batch_size)))
        got = run_json(capsys, folder / "a", *other, "--batch-size", batch_size)
        assert got["metrics"] == expected["metrics"]


def test_a_named_reference_uses_all_60000_images_for_fid(files, capsys, resnet):
    folder, a, _ = files
    result = run_json(
        capsys,
        *(
            folder / "a.npz",
            "--reference",
            "fashion-mnist-train",
            "--metrics",
            "fid,kid",
        ),
        *("--num-images", 40),
    )
    reference = load_reference("fashion-mnist-train")
    assert result["metrics"].keys() == {"fid", "kid"}
    assert result["protocol"]["reference_n"] == 60000
    assert result["protocol"]["reference_sha256"] == reference.sha256
    assert result["protocol"]["kid_reference_n"] == 10000
    assert result["protocol"]["n"] == 40
    whole = evaluate(
        Options((str(folder / "a.npz"),), "fashion-mnist-train", "fid", "fashion-resnet")
    )
    s = Statistics.of(resnet.extract(a).features)
    expected = frechet_distance(reference.mean, reference.cov, s.mean, s.cov)
    assert whole["metrics"]["fid"]["value"] == expected


def test_inception_score_needs_no_reference_and_shows_as_a_table(files, capsys):
    assert main([str(files[0] / "a.npz"), "--metrics", "is-10-splits"]) == 0
    out = capsys.readouterr().out
    header, row, *_ = out.splitlines()
    assert header.split() == ["metric", "value", "+-", "which", "is", "id"]
    assert row.endswith(
        "sd over 10 splits  is-10-splits.fashion-resnet.v1"
    )  # in a pipe: no frame, not cut
    assert "weights_sha256" in out
    assert "features_chosen: the images are grey, 32x32" in out


def test_a_terminal_gets_a_framed_table(files, monkeypatch, capsys):
    from eval import console

    monkeypatch.setattr(console.sys, "stdout", Terminal())
    console.print_table(("metric", "value"), [("fid", "1.5")])
    shown = console.sys.stdout.getvalue()
    assert "fid" in shown
    assert "│" in shown


class Terminal(io.StringIO):
    """A stdout that says it is a terminal."""

    encoding = "utf-8"

    def isatty(self):
        return True


def test_what_is_missing_is_said_in_a_line_each_and_the_rest_goes_on(files, capsys):
    arguments = [str(files[0] / "a.npz"), "--reference", "fashion-mnist-train"]
    arguments += ["--metrics", "fid,fid-infinity,fd-dinov2"]
    assert main([*arguments, "--device", "cpu"]) == 0
    captured = capsys.readouterr()
    assert "fid.fashion-resnet.v1" in captured.out
    assert captured.err == ""
    lines = [line for line in captured.out.splitlines() if line.startswith("missing: ")]
    assert len(lines) == 2
    assert "fid-infinity: FID-infinity on 64 features needs at least 640" in lines[0]
    assert lines[1].startswith("missing: fd-dinov2: ")
    assert "dinov2_vitl14_pretrain.pth" in lines[1]
    assert main([*arguments, "--device", "cpu", "--json"]) == 0
    captured = capsys.readouterr()
    result = json.loads(captured.out)
    assert set(result["missing"]) == {"fid-infinity", "fd-dinov2"}
    assert set(result["metrics"]) == {"fid"}
    assert captured.err.splitlines() == lines


REFERENCE = ("--reference", "fashion-mnist-train")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["nowhere", *REFERENCE], "nowhere: does not exist"),
        (["a.npz"], "--reference is missing"),
        (["a.npz", "--reference", "cifar"], "--reference cifar: no such folder"),
        (
            ["a.npz", *REFERENCE, "--metrics", "fid,fud"],
            "fud (did you mean fid?) is not one of fid, fid-infinity",
        ),
        (["a.npz", *REFERENCE, "--metrics", ","], "nothing is not one of"),
        (["a.npz", *REFERENCE, "--features", "vgg"], "'vgg': expected one of"),
        (
            ["a.npz", *REFERENCE, "--metrics", "fid", "--features", "efficientnet-lite0"],
            "not of efficientnet-lite0; python -m eval.reference build",
        ),
        (["a.npz", *REFERENCE, "--num-images", "61"], "--num-images 61: expected 1 to 60"),
        (
            ["a.npz", "--metrics", "is-10-splits", "--num-images", "9"],
            "10 splits needs 10 images, got 9",
        ),
        (["a.npz", *REFERENCE, "--error-bars", "1"], "--error-bars 1: at least 2"),
        (["a.npz", "b.npy", *REFERENCE, "--error-bars", "3"], "several sets of images already"),
        (["a.npz", *REFERENCE, "--pad", "16"], "32x32 pixels do not fit into --pad 16"),
        (["a.npz", *REFERENCE, "--device", "abacus"], "--device abacus"),
        (["a.npz", *REFERENCE, "--feature-weights", "."], "weights of fashion-resnet not found"),
        (["mixed", *REFERENCE], "all must have one size"),
        (["broken", *REFERENCE], "x.png: not a readable image"),
        (["empty", *REFERENCE], "no images there"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(files, capsys, monkeypatch, arguments, says):
    folder = files[0]
    monkeypatch.chdir(folder)
    for name in ("mixed", "broken", "empty"):
        (folder / name).mkdir(exist_ok=True)
    (folder / "broken" / "x.png").write_bytes(b"\x89PNG")
    PIL.Image.new("L", (32, 32)).save(folder / "mixed" / "a.png")
    PIL.Image.new("L", (28, 28)).save(folder / "mixed" / "b.png")
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert says in captured.err
    assert captured.err.count("\n") == 1


def test_metrics_are_asked_for_once_each():
    assert parse_metrics("is, fid,is") == ["is", "fid"]


def test_interrupt_ends_with_a_line(monkeypatch, capsys):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("eval.__main__.evaluate", interrupt)
    assert main(["x", *REFERENCE]) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_help_answers_at_once_without_torch():
    start = time.monotonic()
    code = (
        "import sys, eval.__main__ as m\n"
        "try: m.main(['--help'])\n"
        "finally: assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--reference" in done.stdout
    assert time.monotonic() - start < 5  # under a second on an idle machine
