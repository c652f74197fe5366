"""`python -m maskgit.checkpoints fetch|inspect|convert`: official weights on this machine.

    fetch                    the four released files, checked, to the cache folder
    inspect PATH             every array with its shape and number of parameters
    convert SOURCE OUT       an official file to a folder of ours, or with --to flax the way back

Results go to stdout, progress to stderr. Exit code 2: input that cannot be used.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Table

from maskgit.checkpoints.fetch import fetch
from maskgit.checkpoints.paths import OFFICIAL_URL, checkpoints_folder
from maskgit.common.cli import exit_code, parse
from maskgit.common.errors import UsageError, one_line
from maskgit.common.files import sha256_of
from maskgit.common.records import check_file, check_size, read_record
from maskgit.presets import NAMES, load_preset


@dataclass(frozen=True)
class FetchCommand:
    """Download the official checkpoints, once; later calls check them.

    An interrupted download goes on with the same command. Size and sha256 of the first download are
    recorded next to each file, and every later use of the file is held against them.
    """

    preset: str | None = None
    """The preset whose files to fetch; default: all four official files."""
    folder: Path | None = None
    """Where to; default: checkpoints/ in $MASKGIT_BENCH_CACHE or ~/.cache/maskgit-bench."""
    url: str | None = None
    """Address of a folder with the files, such as a mirror; default: the official one."""


@dataclass(frozen=True)
class InspectCommand:
    """List the arrays of an official file or of a folder of ours."""

    path: tyro.conf.Positional[Path]
    num_codes: int | None = None
    """How many entries of a transformer's vocabulary are codes (an official file does not say)."""
    verify: bool = False
    """Also compare the whole file with its record."""
    as_json: Annotated[bool, tyro.conf.arg(name="json")] = False
    """Print JSON instead of a table."""


@dataclass(frozen=True)
class ConvertCommand:
    """Rewrite a model in the other format, and read it back to compare."""

    source: tyro.conf.Positional[Path]
    """An official file, or a folder of ours."""
    out: tyro.conf.Positional[Path]
    """A folder; with --to flax a file. A folder that holds a model is replaced."""
    to: Literal["safetensors", "flax"] = "safetensors"
    num_codes: int | None = None
    """As for inspect."""
    half: bool = False
    """Store float16 (safetensors only)."""


Command = (
    Annotated[FetchCommand, tyro.conf.subcommand("fetch")]
    | Annotated[InspectCommand, tyro.conf.subcommand("inspect")]
    | Annotated[ConvertCommand, tyro.conf.subcommand("convert")]
)


def run(command: Command) -> None:
    """Do what the command line asks."""
    if isinstance(command, FetchCommand):
        fetch_files(command)
    elif isinstance(command, InspectCommand):
        inspect(command)
    else:
        convert(command)


def fetch_files(command: FetchCommand) -> None:
    """Fetch and check the official files of one preset or of all; one line each to stdout."""
    presets = [load_preset(name) for name in ([command.preset] if command.preset else NAMES)]
    wanted = [(preset, role) for preset in presets for role in preset.official]
    if not wanted:
        raise UsageError(f"--preset {command.preset}: no official weights of it were released")
    where = command.folder or checkpoints_folder()
    for preset, role in wanted:
        with _bar(preset.official[role]) as progress:
            file, record, done = fetch(preset, role, where, command.url or OFFICIAL_URL, progress)
        print(f"{file}  {done}  {record.size} bytes  sha256 {record.sha256}", flush=True)


def inspect(command: InspectCommand) -> None:
    """Print the arrays of a model's file, what they are, and whether they fit.

    Raises:
        UsageError: the file cannot be read; or its arrays do not fit, after they were printed.
    """
    from maskgit.checkpoints.folder import load_model, model_kind

    path = command.path
    file = path if path.is_file() else path / "model.safetensors"
    if not file.is_file():
        raise UsageError(f"{path}: no such file, and no folder with a model.safetensors")
    (check_file if command.verify else check_size)(file)
    record = read_record(file)
    leaves = _leaves(path)
    content: dict[str, Any] = {
        "path": str(path),
        "size": file.stat().st_size,
        "sha256": sha256_of(file),
        "record": asdict(record) if record else None,
        "parameters": sum(leaf["parameters"] for leaf in leaves),
        "leaves": leaves,
    }
    problem = None
    try:
        model = load_model(path, command.num_codes)
        content["kind"], content["config"] = model_kind(model), asdict(model.config)
    except UsageError as error:
        problem = error
        content["problem"] = str(error)
    if command.as_json:
        print(json.dumps(content, indent=2, sort_keys=True))
    else:
        _print_table(content)
    if problem is not None:
        raise problem


def convert(command: ConvertCommand) -> None:
    """Write a model in the other format, read it back and compare.

    Raises:
        UsageError: source is no model, or out is something that must not be replaced; then out is
            as it was.
    """
    import torch

    from maskgit.checkpoints.flax import write_flax
    from maskgit.checkpoints.folder import load_model, model_kind, save_model
    from maskgit.model.causal import Autoregressive

    source, out, half = command.source, command.out, command.half
    if command.to == "flax":
        if half:
            raise UsageError("--half: the official format is written in float32")
        if out.exists():
            raise UsageError(f"{out}: exists already, expected the name of a new file")
    elif out.exists() and not _is_replaceable(out):
        raise UsageError(f"{out}: exists and holds no model; give the name of a new folder")
    if not source.exists():
        raise UsageError(f"{source}: no such file or folder")
    model = load_model(source, command.num_codes)
    try:
        if command.to == "flax":
            if isinstance(model, Autoregressive):
                raise UsageError(f"{source}: an autoregressive model, which has no official format")
            write_flax(out, model)
        else:
            file = source if source.is_file() else source / "model.safetensors"
            card = {"converted_from": file.name, "sha256": sha256_of(file)}
            save_model(out, model, half=half, card=card)
    except OSError as error:
        raise UsageError(f"{out}: cannot be written ({error.strerror or error})") from None
    back = load_model(out, model.config.num_codes)
    for name, tensor in model.state_dict().items():
        expected = tensor.half().float() if half else tensor
        if not torch.equal(back.state_dict()[name], expected):
            raise UsageError(f"{out}: {name} did not come back as it was written; try again")
    print(f"{out}: {model_kind(model)}, {sum(p.numel() for p in model.parameters())} parameters")


def _is_replaceable(folder: Path) -> bool:
    """An empty folder, or one with a model and nothing else in it."""
    if not folder.is_dir():
        return False
    names = {path.name for path in folder.iterdir()}
    model = {"config.json", "model.safetensors", "card.json", "README.md"}
    return not names or ("config.json" in names and names <= model)


def _leaves(path: Path) -> list[dict[str, Any]]:
    """Name, shape, type and number of parameters of each array."""
    if path.is_file():
        from maskgit.checkpoints.flax import Leaves

        arrays = Leaves(path).arrays
        found = [(name, array.shape, array.dtype.name) for name, array in arrays.items()]
    else:
        from safetensors import SafetensorError, safe_open

        file = path / "model.safetensors"
        try:
            with safe_open(file, framework="numpy") as tensors:
                slices = [(name, tensors.get_slice(name)) for name in tensors.keys()]  # noqa: SIM118
                found = [(name, part.get_shape(), part.get_dtype()) for name, part in slices]
        except (SafetensorError, OSError) as error:
            raise UsageError(f"{file}: not a whole safetensors file ({one_line(error)})") from None
    leaves = []
    for name, shape, dtype in found:
        size = math.prod(shape)
        leaves.append({"name": name, "shape": list(shape), "dtype": dtype, "parameters": size})
    return leaves


def _print_table(content: dict[str, Any]) -> None:
    table = Table(title=f"{content['path']}", title_justify="left")
    table.add_column("array", no_wrap=True)
    table.add_column("shape", no_wrap=True)
    table.add_column("type", no_wrap=True)
    table.add_column("parameters", justify="right", no_wrap=True)
    for leaf in content["leaves"]:
        shape = " x ".join(str(side) for side in leaf["shape"]) or "scalar"
        table.add_row(leaf["name"], shape, leaf["dtype"], f"{leaf['parameters']:,}")
    table.add_section()
    table.add_row(f"{len(content['leaves'])} arrays", "", "", f"{content['parameters']:,}")
    # A pipe has no width: names are never cut.
    console = Console() if sys.stdout.isatty() else Console(width=160)
    console.print(table)
    print(f"{content['size']} bytes, sha256 {content['sha256']}")
    record = content["record"]
    if record is not None:
        print(f"recorded: {record['size']} bytes, sha256 {record['sha256']}, {record['url']}")
    if "config" in content:
        sizes = ", ".join(f"{name} {value}" for name, value in content["config"].items())
        print(f"{content['kind']}: {sizes}")


@contextmanager
def _bar(name: str) -> Iterator[Any]:
    """The progress of one file on stderr: a bar, or in a log file a line for every tenth."""
    if not sys.stderr.isatty():
        tenths = 0

        def say(done: int, total: int | None) -> None:
            nonlocal tenths
            if total and done * 10 // total > tenths:
                tenths = done * 10 // total
                print(f"{name}: {done} of {total} bytes", file=sys.stderr, flush=True)

        yield say
        return
    columns = (TextColumn(name), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(name, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def main() -> None:
    """Parse the command line; one line and exit code 2 for bad input."""

    def command() -> None:
        run(parse(Command, sys.argv[1:], "python -m maskgit.checkpoints", __doc__))

    if code := exit_code(command, "stopped; the same command goes on from what has arrived"):
        sys.exit(code)


if __name__ == "__main__":
    main()
