"""benchmarks/peers.py: contenders do the same work, take turns, and fail in one line."""

import importlib.util
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from benchmarks import peers
from benchmarks.runner import in_fresh_process
from maskgit.common.errors import RunError
from maskgit.model.transformer import Transformer
from maskgit.presets import load_preset
from tests.paths import ROOT

SIZES = ("embedded", "imagenet256", "imagenet512")
# A worker that answers as told: parameters, operations, and how it ends.
DOUBLE = """
import json, sys
sizes = json.loads(sys.argv[1])
if sizes["path"] == "broken":
    sys.exit("Traceback\\nImportError: no module flax")
print(json.dumps({"parameters": PARAMETERS, "flops": FLOPS, "versions": {}}), flush=True)
for number, line in enumerate(sys.stdin):
    if line.strip() == "end":
        break
    if sizes["path"] == "dies" and number == 1:
        sys.exit("out of memory")
    print(0.5 + number, flush=True)
print(12.5, flush=True)
"""


@pytest.fixture
def double(tmp_path, monkeypatch):
    """double(parameters, flops): what answers in place of a peer."""
    monkeypatch.setattr(peers, "PAUSE", 0.0)

    def write(parameters, flops):
        path = tmp_path / "worker.py"
        text = DOUBLE.replace("PARAMETERS", str(parameters)).replace("FLOPS", str(flops))
        path.write_text(text)
        monkeypatch.setattr(peers, "WORKER", path)

    return write


@pytest.mark.parametrize("size", SIZES)
def test_the_peer_is_told_the_sizes_of_our_network(size):
    told = peers.sizes_of(size, 8, 4, "distinct", "float32")
    config = load_preset(size).transformer_config
    with torch.device("meta"):
        model = Transformer(config)
    assert {k: v for k, v in asdict(config).items() if k != "dropout"}.items() <= told.items()
    assert peers.parameters_of(told) == sum(value.numel() for value in model.parameters())
    assert len(set(told["labels"])) == 4
    assert json.loads(json.dumps(told)) == told


def test_the_official_network_at_256_has_the_papers_parameters():
    told = peers.sizes_of("imagenet256", 8, 4, "one", "float32")
    assert peers.parameters_of(told) == 172_457_193
    assert told["labels"] == [0] * 4


@pytest.mark.parametrize("size", SIZES)
def test_three_matrices_of_two_thirds_are_two_whole_ones(size):
    mlp = load_preset(size).transformer.mlp
    if mlp % 3:  # the embedded one: 512, so nearly
        assert 3 * (mlp * 2 // 3) == pytest.approx(2 * mlp, rel=0.01)
    else:
        assert 3 * (mlp * 2 // 3) == 2 * mlp


def test_a_contender_answers_turn_by_turn(double):
    double(10, 20.0)
    with peers.Contender(sys.executable, {"contender": "official", "path": ""}) as worker:
        assert (worker.parameters, worker.flops) == (10, 20.0)
        assert [worker.turn(), worker.turn()] == [0.5, 1.5]
        assert worker.close() == 12.5
    assert worker.process.poll() == 0


@pytest.mark.parametrize(
    ("path", "said"), [("broken", "no module flax"), ("dies", "official: out of memory")]
)
def test_a_contender_that_ends_says_why(double, path, said):
    double(10, 20.0)

    def two_turns():
        with peers.Contender(sys.executable, {"contender": "official", "path": path}) as worker:
            worker.turn()
            worker.turn()

    with pytest.raises(RunError, match=said):
        two_turns()


def test_other_parameters_or_other_work_are_refused(double):
    told = peers.sizes_of("embedded", 8, 2, "distinct", "float32")
    told |= {"contender": "official", "path": ""}
    flops = 1e9 * peers.full_gflop("embedded", 2, 1)
    for parameters, counted, said in (
        (peers.parameters_of(told) + 1, flops, "parameters"),
        (peers.parameters_of(told), flops * 1.2, "operations a forward"),
    ):
        double(parameters, counted)
        with peers.Contender(sys.executable, told) as worker:
            with pytest.raises(RunError, match=said):
                peers.check_work(worker, told)
            worker.close()
    double(peers.parameters_of(told), flops * 1.02)
    with peers.Contender(sys.executable, told) as worker:
        peers.check_work(worker, told)
        worker.close()


def test_a_comparison_end_to_end_with_doubles(double, tmp_path, monkeypatch, capsys):
    told = peers.sizes_of("embedded", 8, 2, "distinct", "float32")
    double(peers.parameters_of(told), 1e9 * peers.full_gflop("embedded", 2, 1))
    checkout = tmp_path / "checkout"
    (checkout / "maskgit" / "libml").mkdir(parents=True)
    (checkout / peers.FOREIGN["official"][1]).touch()
    out = tmp_path / "peers.json"
    words = f"--peer-path {checkout} --size embedded --images 2 --out {out}".split()
    monkeypatch.setattr(sys, "argv", ["peers.py", *words])
    assert peers.main() == 0
    rows = {row["contender"]: row for row in json.loads(out.read_text())["rows"]}
    # Both doubles answer 1.5, 2.5 and 3.5 after the turn that does not count.
    assert rows["official"]["seconds"] == [1.5, 2.5, 3.5]
    assert rows["official"]["seconds_per_image"] == 1.25
    assert rows["official"]["ours_is_faster"] == 1.0
    assert "times the official decode: 1 (at least 1.15: missed)" in capsys.readouterr().out


@pytest.mark.parametrize("contender", ["ours", pytest.param("ours-jax", marks=pytest.mark.slow)])
def test_our_own_contenders_do_the_work(contender):
    told = peers.sizes_of("embedded", 2, 2, "distinct", "float32")
    told |= {"contender": contender, "path": ""}
    with peers.Contender(sys.executable, told, {"PYTHONPATH": str(ROOT)}) as worker:
        peers.check_work(worker, told)
        assert worker.turn() > 0
        assert worker.close() > 0


def test_a_checkout_comes_before_an_installed_package_of_its_name(tmp_path):
    (tmp_path / "maskgit" / "libml").mkdir(parents=True)
    (tmp_path / "maskgit" / "libml" / "peer.py").write_text("ORIGIN = 'the checkout'")
    code = f"""
import runpy
worker = runpy.run_path({str(peers.WORKER)!r})
worker["package"]("maskgit", {str(tmp_path)!r})
from maskgit.libml.peer import ORIGIN
print(f'"{{ORIGIN}}"')
"""
    assert in_fresh_process(["-c", code]) == "the checkout"


@pytest.mark.slow
@pytest.mark.parametrize("contender", ["official", "open-muse"])
def test_the_real_peer_does_the_same_work(contender):
    """With MASKGIT_PEER_PATH or MASKGIT_MUSE_PATH, a checkout, and MASKGIT_PEER_PYTHON."""
    name = {"official": "MASKGIT_PEER_PATH", "open-muse": "MASKGIT_MUSE_PATH"}[contender]
    python = os.environ.get("MASKGIT_PEER_PYTHON", sys.executable)
    if name not in os.environ:
        pytest.skip(f"{name} names no checkout")
    if python == sys.executable and importlib.util.find_spec("flax") is None:
        pytest.skip("MASKGIT_PEER_PYTHON names no Python with the peer's packages")
    told = peers.sizes_of("embedded", 2, 2, "distinct", "float32")
    told |= {"contender": contender, "path": str(Path(os.environ[name]))}
    with peers.Contender(python, told) as worker:
        peers.check_work(worker, told)
        assert worker.turn() > 0
        worker.close()
