"""The paper's models at their full size, in the official format, through the script on a CPU."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from experiments import ablate_schedule

SCHEDULES = {"exponential", "cubic", "square", "cosine", "linear", "sqrt", "logarithmic"}
LIMIT = 6e9  # bytes, of the whole process tree


def tree_bytes(root: int) -> int:
    """Resident memory of a process and all below it; pages that they share count in each."""
    parents, resident = {}, {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it ended meanwhile
        pid = int(stat.parent.name)
        parents[pid], resident[pid] = int(fields[1]), int(fields[21])
    total = 0
    for pid in resident:
        above = pid
        while above not in (root, 0, 1) and above in parents:
            above = parents[above]
        total += resident[pid] * (above == root)
    return total * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_seven_schedules_of_imagenet256_stay_under_six_gigabytes(tmp_path):
    from maskgit.presets import load_preset
    from tests.maskgit.official_writer import write_official_weights

    weights, out = tmp_path / "weights", tmp_path / "run"
    weights.mkdir()
    write_official_weights(load_preset("imagenet256"), weights)
    words = ["--preset", "imagenet256", "--weights", weights, "--T", "8", "--num-samples", "1"]
    environment = {**os.environ, "MASKGIT_BENCH_CACHE": str(tmp_path), "TORCH_HOME": str(tmp_path)}
    environment.pop("MASKGIT_BENCH_WEIGHTS", None)
    command = [sys.executable, ablate_schedule.__file__, *words, "--out", out]
    peak = 0
    with open(tmp_path / "stderr", "w") as stderr:
        process = subprocess.Popen(
            list(map(str, command)), env=environment, stdout=subprocess.PIPE, stderr=stderr
        )
        while process.poll() is None:
            peak = max(peak, tree_bytes(process.pid))
            time.sleep(0.05)
    said = (tmp_path / "stderr").read_text()
    assert process.returncode == 0, said
    print(f"peak memory of the process tree: {peak / 1e9:.2f} GB")  # shown by pytest -s
    assert 1e9 < peak < LIMIT

    found = [json.loads(path.read_text()) for path in out.glob("cells/*/result.json")]
    assert {result["cell"]["schedule"] for result in found} == SCHEDULES
    drawn = {path.read_bytes() for path in (out / "stages" / "tokens").glob("*/*.npy")}
    assert len(drawn) == 7  # each schedule its own samples
    for path in (out / "stages" / "tokens").glob("*/*.npy"):
        tokens = np.load(path)
        assert tokens.shape == (1, 256)
        assert tokens.max() < 1024
    for result in found:
        with np.load(out / "cells" / result["key"] / "samples.npz") as samples:
            assert samples["images"].shape == (1, 256, 256, 3)
            assert samples["images"].std() > 0
        assert result["metrics"] == {}
        assert "inception-v3-compat" in result["missing"]["fid"]
        assert "--data FOLDER" in result["missing"]["nll"]
    text = (out / "report" / "report.md").read_text()
    assert "one transformer, trained with the cosine schedule, decoded with every schedule" in text
    assert "weights of inception-v3-compat not found" in text
    assert text.count("**not run**") == 4
