"""The same decoding through others, on the same machine, with the same sizes and random weights.

    python benchmarks/peers.py --peer-path CHECKOUT --peer-python PYTHON
    python benchmarks/peers.py --peer-path CHECKOUT --precision float32,bfloat16 --classes one
    python benchmarks/peers.py --muse-path CHECKOUT --peer-python PYTHON

CHECKOUT is yours and no part of this repository: `git clone` of google-research/maskgit, or with
--muse-path of huggingface/open-muse. PYTHON is one that has what the checkout needs (jax and flax;
torch, accelerate, einops, tqdm and requests for open-muse); by default the one that runs this.

Every contender is a process of its own (benchmarks/peer_worker.py) that waits while another works;
they take turns, a first turn (which compiles) does not count, and medians are compared. All decode
T iterations of the same number of images from class labels to tokens: the official code as one
jitted program; open-muse with a perceptron two thirds as wide, because its gated one has three
matrices instead of two, which makes its products exactly as many. Before anything is timed, the
number of parameters of the official network must be ours, and the operations of a forward, as each
library counts them, too.

Not compared: diffusers. Its AmusedPipeline samples from UVit2DModel, which convolves the tokens
down to a fourth of the positions before its layers, attends to a text encoder's states and has no
class labels; there is no setting of it that does the work timed here.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks import runner
from benchmarks.runner import PRECISIONS, Columns, Row, number
from benchmarks.sampling import SIZES, Case, labels_of
from maskgit.common.cli import exit_code
from maskgit.common.errors import RunError, UsageError

WORKER = Path(__file__).with_name("peer_worker.py")
TARGETS = {"float32": 1.15, "bfloat16": 2.0}
COUNTED_ALIKE = 0.1  # largest relative difference of two counts of the same forward
PAUSE = 0.5  # seconds; libraries' threads look for work in a loop for a while
# Flag and, to say early that a folder is no checkout, a file that a checkout has.
FOREIGN = {
    "official": ("--peer-path", "maskgit/libml/parallel_decode.py"),
    "open-muse": ("--muse-path", "muse/modeling_transformer.py"),
}
COLUMNS: Columns = {
    "work": lambda row: (
        f"{row['size']}, T={row['steps']}, {row['images']} images, {row['classes']} "
        f"class{'es' if row['classes'] == 'distinct' else ''}, {row['precision']}"
    ),
    "contender": lambda row: (
        row["contender"] + "".join(f", {name} {text}" for name, text in row["versions"].items())
    ),
    "s an image": number("seconds_per_image"),
    "times as long as ours": lambda row: f"{row['ours_is_faster']:.2f}",
    "peak MiB": lambda row: f"{row['peak_mib']:,.0f}",
}


def sizes_of(size: str, steps: int, images: int, classes: str, precision: str) -> dict[str, Any]:
    """What a worker is told: the network's sizes, the labels, the decoding."""
    from maskgit.presets import load_preset

    config = load_preset(size).transformer_config
    labels = labels_of(Case(size, images=images, classes=classes), config.num_classes)
    names = ("num_codes", "num_classes", "num_tokens", "width", "layers", "heads", "mlp")
    return {
        **{name: getattr(config, name) for name in names},
        "size": size,
        "steps": steps,
        "labels": labels.tolist(),
        "classes": classes,
        "precision": precision,
    }


def parameters_of(sizes: Mapping[str, Any]) -> int:
    """Parameters of the official network of these sizes, from its description."""
    width, mlp = sizes["width"], sizes["mlp"]
    vocabulary = sizes["num_codes"] + sizes["num_classes"] + 1
    embeddings = (vocabulary + 1 + sizes["num_tokens"]) * width + 2 * width
    layer = 4 * (width**2 + width) + 2 * width * mlp + mlp + width + 4 * width
    return embeddings + sizes["layers"] * layer + width**2 + 3 * width + vocabulary


def full_gflop(size: str, images: int, steps: int) -> float:
    """The official loop's work, in GFLOP."""
    from benchmarks.work import full_flops
    from maskgit.presets import load_preset

    return full_flops(load_preset(size).transformer_config, images, steps) / 1e9


class Contender:
    """A worker process; use it as a context.

    Raises:
        RunError: the worker has ended, in `__init__`, `turn` or `close`; the message says why.
    """

    def __init__(
        self, python: str, sizes: dict[str, Any], environment: Mapping[str, str] | None = None
    ):
        self.name = sizes["contender"]
        # A file, as a pipe that nobody reads would fill up.
        self.stderr = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.process = subprocess.Popen(
            [python, str(WORKER), json.dumps(sizes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.stderr,
            text=True,
            env={**os.environ, **(environment or {})},
        )
        about = json.loads(self._line())
        self.parameters, self.versions = about["parameters"], about["versions"]
        self.flops = about["flops"]

    def turn(self) -> float:
        """Seconds of one batch, when the threads of the one before have gone to sleep."""
        time.sleep(PAUSE)
        return float(self._ask("go"))

    def close(self) -> float:
        """End the process; returns its peak memory in MiB."""
        peak = float(self._ask("end"))
        self.process.wait(60)
        return peak

    def _ask(self, word: str) -> str:
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # `_line` tells why
            self.process.stdin.write(word + "\n")
            self.process.stdin.flush()
        return self._line()

    def _line(self) -> str:
        assert self.process.stdout is not None
        text = self.process.stdout.readline()
        if not text:
            code = self.process.wait(60)
            self.stderr.seek(0)
            reason = runner.reason_of(self.stderr.read()) or f"exit code {code}"
            raise RunError(f"{self.name}: {reason}")
        return text

    def __enter__(self) -> Contender:
        return self

    def __exit__(self, *unused: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.stderr.close()


def check_work(worker: Contender, sizes: dict[str, Any]) -> None:
    """Check that a contender does the work it is timed for.

    Raises:
        RunError: it has other parameters, or its library counts other operations of one forward.
    """
    parameters = parameters_of(sizes)
    if worker.name != "open-muse" and worker.parameters != parameters:
        raise RunError(
            f"{worker.name}: {worker.parameters} parameters, but {parameters} for these sizes"
        )
    flops = 1e9 * full_gflop(sizes["size"], len(sizes["labels"]), 1)
    # XLA counts softmax, GELU and normalisation too, a few percent at these widths.
    if abs(worker.flops / flops - 1) > COUNTED_ALIKE:
        raise RunError(
            f"{worker.name}: {worker.flops:.4g} operations a forward, but {flops:.4g} for these "
            "sizes"
        )


def compare(flags: Any, precision: str, paths: Mapping[str, Path | None]) -> list[Row]:
    """Rows of one precision; paths: of every contender, None for our own."""
    sizes = sizes_of(flags.size, flags.T, flags.images, flags.classes, precision)
    environment = runner.bfloat16_environment("cpu") if precision == "bfloat16" else {}
    with contextlib.ExitStack() as stack:
        workers = {}
        for name, path in paths.items():
            print(f"{name} {precision}: starting", file=sys.stderr)
            python = flags.peer_python if name in FOREIGN else sys.executable
            told = {**sizes, "contender": name, "path": str(path or "")}
            workers[name] = stack.enter_context(Contender(python, told, environment))
            check_work(workers[name], sizes)
            workers[name].turn()
        turns = {name: worker.turn for name, worker in workers.items()}
        times = runner.take_turns(turns, flags.repeats)
        peaks = {name: worker.close() for name, worker in workers.items()}
    medians = {name: statistics.median(values) for name, values in times.items()}
    return [
        {
            "name": f"{name} {flags.size} T={flags.T} x{flags.images} {precision} {flags.classes}",
            "contender": name,
            "size": flags.size,
            "steps": flags.T,
            "images": flags.images,
            "classes": flags.classes,
            "precision": precision,
            "seconds": [round(value, 4) for value in times[name]],
            "seconds_per_image": round(seconds / flags.images, 4),
            "gflop_full": full_gflop(flags.size, flags.images, flags.T),
            "ours_is_faster": round(seconds / medians["ours"], 4),
            "parameters": workers[name].parameters,
            "gflop_of_a_forward": round(workers[name].flops / 1e9, 2),
            "versions": workers[name].versions,
            "environment": dict(environment),
            "peak_mib": peaks[name],
        }
        for name, seconds in medians.items()
    ]


def targets(rows: list[Row]) -> list[str]:
    """One line for every comparison with the official code."""
    return [
        runner.verdict(
            f"{row['size']} T={row['steps']} x{row['images']} {row['precision']}, "
            f"{row['classes']}: times the official decode",
            row["ours_is_faster"],
            TARGETS[row["precision"]],
        )
        for row in rows
        if row["contender"] == "official"
    ]


def main() -> int:
    """Parse the flags, compare, print."""
    parser = runner.Parser(__doc__)
    precisions = runner.several(PRECISIONS)
    parser.add_argument("--peer-path", type=Path, help="checkout of google-research/maskgit")
    parser.add_argument("--muse-path", type=Path, help="checkout of huggingface/open-muse")
    parser.add_argument("--peer-python", default=sys.executable, help="Python for the checkouts")
    parser.add_argument("--size", choices=SIZES, default="imagenet256")
    parser.add_argument("--T", type=runner.at_least_one, default=8, help="iterations")
    parser.add_argument("--images", type=runner.at_least_one, default=4, help="of one batch")
    parser.add_argument("--precision", type=precisions, default=["float32"])
    parser.add_argument("--classes", choices=("distinct", "one"), default="distinct")
    parser.add_argument("--jax", action="store_true", help="also our own JAX backend, in float32")
    parser.add_argument("--repeats", type=runner.at_least_one, default=3)
    parser.add_out()
    flags = parser.parse_args()
    peers = {"official": flags.peer_path, "open-muse": flags.muse_path}
    peers = {name: path for name, path in peers.items() if path is not None}
    if not peers:
        raise UsageError("--peer-path: expected a checkout of google-research/maskgit")
    for name, path in peers.items():
        flag, inside = FOREIGN[name]
        if not (path / inside).is_file():
            raise UsageError(f"{flag} {path}: expected a checkout that has {inside}")
    results = runner.Results("peers", "cpu", flags.out)
    rows: list[Row] = []
    for precision in flags.precision:
        own: dict[str, Path | None] = {"ours": None}
        if flags.jax and precision == "float32":
            own["ours-jax"] = None
        try:
            found = compare(flags, precision, own | peers)
        except RunError as error:
            raise UsageError(f"{precision}: {error}") from None
        for row in found:
            results.add(row)
        rows += found
    print(runner.table(COLUMNS, rows))
    print("\n".join(targets(rows)))
    return 0


if __name__ == "__main__":
    sys.exit(exit_code(main))
