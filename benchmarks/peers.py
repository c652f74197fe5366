"""The same decoding through others, on the same machine, with the same sizes and random weights.

    python benchmarks/peers.py --peer-path CHECKOUT --peer-python PYTHON
    python benchmarks/peers.py --peer-path CHECKOUT --precision float32,bfloat16 --classes one
    python benchmarks/peers.py --muse-path CHECKOUT --peer-python PYTHON

CHECKOUT is yours and no part of this repository: `git clone` of google-research/maskgit, or with
--muse-path of huggingface/open-muse. PYTHON is one that has what the checkout needs (jax and flax;
torch, accelerate, einops, tqdm and requests for open-muse); by default the one that runs this.

Every contender is a process of its own that waits while another works; they take turns, a first
turn (which compiles) does not count, and medians are compared. All decode T iterations of the same
number of images from class labels to tokens: the official code as one jitted program; open-muse
with a perceptron two thirds as wide, because its gated one has three matrices instead of two, which
makes its products exactly as many. Before anything is timed, the number of parameters of the
official network must be ours, and the operations of a forward, as each library counts them, too.

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
from pathlib import Path
from types import TracebackType
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # also without an install

from benchmarks.common import (
    BenchmarkError,
    Parser,
    Results,
    Row,
    at_least_one,
    fail,
    reason_of,
    several,
    shown,
    table,
    take_turns,
    verdict,
)
from benchmarks.sampling import bfloat16_environment
from benchmarks.sampling_case import PRECISIONS, SIZES

WORKER = Path(__file__).with_name("peer_worker.py")
TARGETS = {"float32": 1.15, "bfloat16": 2.0}
COUNTED_ALIKE = 0.1  # largest relative difference of two counts of the same forward
PAUSE = 0.5  # seconds; libraries' threads look for work in a loop for a while
FOREIGN = ("official", "open-muse")
# What a checkout has to contain, to say early that it is another folder.
INSIDE = {
    "official": "maskgit/libml/parallel_decode.py",
    "open-muse": "muse/modeling_transformer.py",
}
HEAD = ("contender", "s/image", "images/s", "GFLOP/s", "ours is faster", "peak MiB")


def sizes_of(size: str, steps: int, images: int, classes: str, precision: str) -> dict[str, Any]:
    """What a worker is told: the network's sizes, the labels, the decoding."""
    from benchmarks.sampling_case import Case, labels_of
    from maskgit.presets import get_preset
    from maskgit.training.stage2 import transformer_config

    config = transformer_config(get_preset(size))
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


def parameters_of(sizes: dict[str, Any]) -> int:
    """Parameters of the official network of these sizes, from its description."""
    width, mlp = sizes["width"], sizes["mlp"]
    vocabulary = sizes["num_codes"] + sizes["num_classes"] + 1
    embeddings = (vocabulary + 1 + sizes["num_tokens"]) * width + 2 * width
    layer = 4 * (width**2 + width) + 2 * width * mlp + mlp + width + 4 * width
    return embeddings + sizes["layers"] * layer + width**2 + 3 * width + vocabulary


class Contender:
    """A worker process; use as a context, or end it with `close`."""

    def __init__(
        self, python: str, sizes: dict[str, Any], environment: dict[str, str] | None = None
    ):
        self.name = sizes["contender"]
        # A file, as a pipe that nobody reads would fill up.
        self.said = tempfile.TemporaryFile("w+")  # noqa: SIM115
        self.process = subprocess.Popen(
            [python, str(WORKER), json.dumps(sizes)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.said,
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
        """End the process; its peak memory in MiB."""
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
            self.said.seek(0)
            reason = reason_of(self.said.read()) or f"exit code {code}"
            raise BenchmarkError(f"{self.name}: {reason}")
        return text

    def __enter__(self) -> Contender:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        self.said.close()


def check_work(worker: Contender, sizes: dict[str, Any]) -> None:
    """Whether a contender does the work it is timed for: its parameters, and what its own library
    counts for one forward.

    Raises BenchmarkError: it does not.
    """
    parameters = parameters_of(sizes)
    if worker.name != "open-muse" and worker.parameters != parameters:
        raise BenchmarkError(
            f"{worker.name}: {worker.parameters} parameters, but {parameters} for these sizes"
        )
    flops = 1e9 * full_gflop(sizes["size"], len(sizes["labels"]), 1)
    # XLA counts softmax, GELU and normalisation too, a few percent at these widths.
    if abs(worker.flops / flops - 1) > COUNTED_ALIKE:
        raise BenchmarkError(
            f"{worker.name}: {worker.flops:.4g} operations a forward, but {flops:.4g} for these "
            "sizes"
        )


def compare(flags: Any, precision: str, contenders: list[str]) -> list[Row]:
    """Rows of one precision."""
    sizes = sizes_of(flags.size, flags.T, flags.images, flags.classes, precision)
    bf16 = bfloat16_environment("cpu") if precision == "bfloat16" else {}
    paths = {"official": flags.peer_path, "open-muse": flags.muse_path}
    with contextlib.ExitStack() as stack:
        workers = {}
        for name in contenders:
            print(f"{name} {precision}: starting", file=sys.stderr)
            python = flags.peer_python if name in FOREIGN else sys.executable
            told = {**sizes, "contender": name, "path": str(paths.get(name, ""))}
            workers[name] = stack.enter_context(Contender(python, told, bf16))
            check_work(workers[name], sizes)
            workers[name].turn()
        times = take_turns({name: worker.turn for name, worker in workers.items()}, flags.repeats)
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
            "environment": bf16,
            "peak_mib": peaks[name],
        }
        for name, seconds in medians.items()
    ]


def full_gflop(size: str, images: int, steps: int) -> float:
    """The official loop's work, in GFLOP."""
    from benchmarks.work import full_flops
    from maskgit.presets import get_preset
    from maskgit.training.stage2 import transformer_config

    return full_flops(transformer_config(get_preset(size)), images, steps) / 1e9


def line(row: Row) -> tuple[str, ...]:
    """A row of the table; GFLOP/s of the full work, which only the official code does."""
    seconds = statistics.median(row["seconds"])
    return (
        f"{row['contender']} {row['precision']}, {row['classes']} class"
        + ("es" if row["classes"] == "distinct" else ""),
        shown(row["seconds_per_image"]),
        shown(row["images"] / seconds),
        shown(row["gflop_full"] / seconds),
        f"{row['ours_is_faster']:.2f} x",
        shown(row["peak_mib"], 4),
    )


def targets(rows: list[Row]) -> list[str]:
    """One line for every comparison with the official code."""
    return [
        verdict(
            f"{row['size']} T={row['steps']} x{row['images']} {row['precision']}, "
            f"{row['classes']}: times the official decode",
            row["ours_is_faster"],
            TARGETS[row["precision"]],
        )
        for row in rows
        if row["contender"] == "official"
    ]


def parser() -> Parser:
    """The command line."""
    found = Parser(description=__doc__.splitlines()[0])
    found.add_argument("--peer-path", type=Path, help="checkout of google-research/maskgit")
    found.add_argument("--muse-path", type=Path, help="checkout of huggingface/open-muse")
    found.add_argument("--peer-python", default=sys.executable, help="Python for the checkouts")
    found.add_argument("--size", choices=SIZES, default="imagenet256")
    found.add_argument("--T", type=at_least_one, default=8, help="iterations")
    found.add_argument("--images", type=at_least_one, default=4, help="of one batch")
    found.add_argument("--precision", type=several(PRECISIONS), default=["float32"])
    found.add_argument("--classes", choices=("distinct", "one"), default="distinct")
    found.add_argument("--jax", action="store_true", help="also our own JAX backend, in float32")
    found.add_argument("--repeats", type=at_least_one, default=3)
    found.add_argument("--out", type=Path, default=None, help="result file, JSON")
    return found


def main() -> int:
    """Parse the flags, compare, print."""
    flags = parser().parse_args()
    paths = {"official": flags.peer_path, "open-muse": flags.muse_path}
    peers = [name for name, path in paths.items() if path is not None]
    if not peers:
        fail("--peer-path: nothing to compare with; clone google-research/maskgit and name it here")
    for name in peers:
        if not (paths[name] / INSIDE[name]).is_file():
            flag = "--peer-path" if name == "official" else "--muse-path"
            fail(f"{flag} {paths[name]}: expected a checkout that has {INSIDE[name]}")
    results = Results("peers", "cpu", flags.out)
    rows: list[Row] = []
    for precision in flags.precision:
        own = ["ours", "ours-jax"] if flags.jax and precision == "float32" else ["ours"]
        try:
            found = compare(flags, precision, own + peers)
        except BenchmarkError as error:
            fail(f"{precision}: {error}")
        for row in found:
            results.add(row)
        rows += found
    print(table([HEAD, *map(line, rows)]))
    print("\n".join(targets(rows)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
