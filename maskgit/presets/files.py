"""Presets as TOML files: read, checked key by key, and written.

A file names a `base` (a preset that comes with the package, or another file, beside it) and what
differs. Sections: data, tokenizer, tokenizer_loss, tokenizer_training, transformer,
transformer_training, evaluation. In a file with other data (`data.kind` or `data.path`) what the
base says of its data and of what measures them does not hold, and in one with other data or
networks the base's weights do not.
"""

from __future__ import annotations

import json
import math
import re
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from maskgit.common.class_lists import CLASS_LISTS
from maskgit.common.cli import suggestion
from maskgit.common.errors import UsageError, one_line
from maskgit.model.config import TokenizerConfig, TransformerShape
from maskgit.presets.preset import Preset
from maskgit.schedules import validate
from maskgit.training.settings import Optimisation, TokenizerLoss

FOLDER = Path(__file__).parent
NAMES = tuple(sorted(path.stem for path in FOLDER.glob("*.toml")))  # that come with the package
MAX_BYTES = 2**20  # of a file
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_PARTS = {
    "tokenizer": TokenizerConfig,
    "tokenizer_loss": TokenizerLoss,
    "tokenizer_training": Optimisation,
    "transformer": TransformerShape,
    "transformer_training": Optimisation,
}
_TOP = ("base", "name", "ships", "runs_folder", "official")
# What of a base's [evaluation] is about its data.
_ABOUT_DATA = (
    *("features", "reference", "reference_split", "precision_recall_features"),
    "diversity_features",
    *("rejection_classifier", "cas_samples"),
)
_CHOICES = {
    "data.crop": ("none", "random-resized", "center"),
    "decay": ("constant", "cosine"),
    "reference_split": ("train", "val"),
    "class_list": ("", *CLASS_LISTS),
}
# Lowest and highest value of a number; a pair stands for the key in every section.
_RANGES: dict[str, tuple[float, float]] = {
    "image_size": (4, 4096),
    "image_width": (4, 4096),
    "tokenizer_image_size": (4, 4096),
    "num_classes": (1, 2**20),
    "num_codes": (2, 2**16),  # tokens are stored as uint16
    "train_images": (1, 2**40),
    "steps": (1, 2**40),
    "batch_size": (1, 2**20),
    "learning_rate": (1e-12, 10),
    "warmup_steps": (0, 2**40),
    "betas": (0, 1 - 1e-9),
    "ema": (0, 1),
    "clip_norm": (1e-12, math.inf),
    "dropout": (0, 1 - 1e-9),
    "label_smoothing": (0, 1 - 1e-9),
    "min_mask_ratio": (0, 1 - 1e-9),
    "crop_scale": (1e-6, 1),
    "num_samples": (1, 2**31),
    "block": (1, 2**20),
    "table_samples": (1, 2**31),
    "held_out": (1, 2**31),
    "decoding_steps": (1, 2**20),
    "table_steps": (1, 2**20),
}


def load_preset(name_or_file: str | Path, heads: int | None = None) -> Preset:
    """The preset of a name, of a TOML file, or of the text of such a file.

    heads: another number of attention heads than the preset's.

    Raises:
        UsageError: no such preset or file, or what is wrong in it, with the path of the key.
    """
    text, where, folder = _read(str(name_or_file))
    name = "own" if where == _TEXT else Path(where).stem
    preset = _preset(_merged(text, where, folder, ()), name, where)
    return preset if heads is None else preset.with_heads(heads)


_TEXT = "preset"


def _read(given: str) -> tuple[str, str, Path]:
    """(text, where it is from, folder of files that it names)."""
    if "\n" in given:
        return given, _TEXT, Path()
    if given in NAMES:
        path = FOLDER / f"{given}.toml"
        return path.read_text(encoding="utf-8"), given, FOLDER
    path = Path(given).expanduser()
    if not given.lower().endswith(".toml"):
        near = suggestion(given, NAMES)
        raise UsageError(f"--preset {given}: expected one of {', '.join(NAMES)} or FILE.toml{near}")
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
        if len(raw) > MAX_BYTES:
            raise UsageError(f"--preset {given}: more than {MAX_BYTES >> 20} MiB, expected TOML")
        return raw.decode("utf-8"), given, path.parent
    except OSError as error:
        raise UsageError(f"--preset {given}: {error.strerror or error}") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"--preset {given}: not UTF-8 ({error.reason})") from None


def _merged(text: str, where: str, folder: Path, seen: tuple[str, ...]) -> dict[str, Any]:
    """A file's table over that of its base."""
    try:
        table = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise UsageError(f"{where}: not TOML ({one_line(error)})") from None
    _check(table, where)
    data = table.get("data", {})
    if "path" in data and not _names_data(data["path"]):
        data["path"] = str(folder / Path(data["path"]).expanduser())
    if "base" not in table:
        return table
    base = str(table.pop("base"))
    if base not in NAMES:
        base = str(folder / Path(base).expanduser())
    if base in seen:
        raise UsageError(f"{where}: base = {base!r} leads back to this file")
    try:
        below = _merged(*_read(base), (*seen, base))
    except UsageError as error:
        raise UsageError(f"{where}: base: {error}") from None
    below.pop("name", None)
    if {"kind", "path"} & table.get("data", {}).keys():
        size = below.get("data", {}).get("image_size")
        below["data"] = {} if size is None else {"image_size": size}
        for key in _ABOUT_DATA:
            below.get("evaluation", {}).pop(key, None)
    if "class_names" in table.get("data", {}):
        below.get("data", {}).pop("class_list", None)
    if "num_classes" in table.get("data", {}):
        below.get("evaluation", {}).pop("block", None)
    if {"data", *_PARTS} & table.keys():
        for key in ("ships", "runs_folder", "official"):
            below.pop(key, None)
    for section, values in table.items():
        if isinstance(values, Mapping):
            below[section] = {**below.get(section, {}), **values}
        else:
            below[section] = values
    return below


def _names_data(path: str) -> bool:
    """Whether it is no path but the name of a data set, such as torchvision:CIFAR10."""
    return re.match("[a-z]+:", path) is not None


def _hints() -> dict[str, dict[str, Any]]:
    """section -> key -> the type of its values."""
    found = {name: typing.get_type_hints(part) for name, part in _PARTS.items()}
    hints = typing.get_type_hints(Preset)
    for item in fields(Preset):
        if section := item.metadata.get("section"):
            found.setdefault(section, {})[item.metadata["key"] or item.name] = hints[item.name]
    return found


_HINTS = _hints()


def _check(table: dict[str, Any], where: str) -> None:
    """Check names, types and ranges of one file's keys; lists become tuples.

    Raises:
        UsageError: the first that is wrong, with its path.
    """
    _known(table, (*_TOP, *_HINTS), where, "")
    tops = {"base": str, "name": str, "ships": bool, "runs_folder": str, "official": dict}
    for key, kind in tops.items():
        if key in table and not isinstance(table[key], kind):
            expected = "a text" if kind is str else _WORDS.get(kind, "a table")
            raise UsageError(f"{where}: {key} = {_shown(table[key])}: expected {expected}")
    if "name" in table and not _NAME.fullmatch(table["name"]):
        raise UsageError(f"{where}: name = {table['name']!r}: expected letters, digits, . _ -")
    for section, hints in _HINTS.items():
        values = table.get(section, {})
        if not isinstance(values, dict):
            raise UsageError(f"{where}: {section} = {_shown(values)}: expected a table [{section}]")
        _known(values, hints, where, f"{section}.")
        for key, value in values.items():
            try:
                values[key] = _converted(value, hints[key])
                _in_range(values[key], section, key)
            except UsageError as error:
                shown = f"{where}: {section}.{key} = {_shown(value)}"
                raise UsageError(f"{shown}: expected {error}") from None


def _known(values: Mapping[str, Any], known: Iterable[str], where: str, path: str) -> None:
    for key in values:
        if key not in known:
            near = suggestion(key, known) or f"; one of {', '.join(sorted(known))}"
            raise UsageError(f"{where}: {path}{key}: no such key{near}")


_WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
    Path: "a path",
}


def _converted(value: Any, hint: Any) -> Any:
    """The value as its field's type has it; an empty text stands for None where that is allowed."""
    if isinstance(hint, types.UnionType):
        hint = next(part for part in typing.get_args(hint) if part is not type(None))
        if value == "":
            return None
    if typing.get_origin(hint) is tuple:
        kinds = typing.get_args(hint)
        each = _WORDS[kinds[0]].removeprefix("a ")
        many = kinds[-1] is Ellipsis
        if not isinstance(value, list) or not (many or len(value) == len(kinds)):
            raise UsageError(f"a list of {'' if many else f'{len(kinds)} '}{each}s")
        return tuple(_converted(item, kinds[0]) for item in value)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if hint is float and number:
        return float(value)
    if hint is int and (isinstance(value, bool) or not isinstance(value, int)):
        raise UsageError(_WORDS[int])
    if not isinstance(value, str if hint is Path else hint):
        raise UsageError(_WORDS[hint])
    return value


def _in_range(value: Any, section: str, key: str) -> None:
    choices = _CHOICES.get(f"{section}.{key}") or _CHOICES.get(key)
    if choices and value not in choices:
        raise UsageError(" or ".join(choices) + suggestion(value, choices))
    for item in value if isinstance(value, tuple) else (value,):
        if isinstance(item, bool | str) or item is None:
            continue
        # What has no range of its own is a weight or a size, of which none is below zero.
        low, high = _RANGES.get(key, (0, math.inf if isinstance(item, float) else 2**31))
        if not low <= item <= high:
            upto = "" if high == math.inf else f", at most {high:g}"
            raise UsageError(f"at least {low:g}{upto}")


def _shown(value: object) -> str:
    return f"{value!r:.60}"


def _preset(table: dict[str, Any], name: str, where: str) -> Preset:
    """The preset of a whole table.

    Raises:
        UsageError: a key is missing, or two do not fit together.
    """
    values: dict[str, Any] = {"name": table.get("name", name)}
    values |= {key: table[key] for key in ("ships", "runs_folder", "official") if key in table}
    left = {section: dict(table.get(section, {})) for section in _HINTS}
    for item in fields(Preset):
        section = item.metadata.get("section")
        key = item.metadata.get("key") or item.name
        if section and key in left[section]:
            values[item.name] = left[section].pop(key)
        elif section and item.default is MISSING:
            raise UsageError(f"{where}: {section}.{key} is missing")
    if isinstance(values.get("path"), str):
        values["path"] = Path(values["path"])
    for section, part in _PARTS.items():
        try:
            values[section] = part(**left[section])
        except TypeError:
            lacking = next(f.name for f in fields(part) if f.default is MISSING)
            raise UsageError(f"{where}: {section}.{lacking} is missing") from None
        except UsageError as error:
            raise UsageError(f"{where}: {section}: {error}") from None
    if not _NAME.fullmatch(values["name"]):
        values["name"] = re.sub(r"[^A-Za-z0-9._-]+", "-", values["name"]).strip("-._") or "own"
    if not values.get("class_names") and values.get("class_list"):
        values["class_names"] = CLASS_LISTS[values["class_list"]]().names
    if not values.get("class_names"):
        values["class_names"] = tuple(f"class {i}" for i in range(values["num_classes"]))
    values.setdefault("block", -(-100 // values["num_classes"]) * values["num_classes"])
    preset = Preset(**values)
    try:
        _fits(preset)
        preset.transformer_config  # noqa: B018  # checks its sizes
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from None
    return preset


def _fits(preset: Preset) -> None:
    """Raise a UsageError if two settings do not fit together."""
    step, classes = preset.tokenizer.downsampling, preset.num_classes
    if len(preset.class_names) != classes:
        raise UsageError(f"data.class_names: {len(preset.class_names)} names of {classes} classes")
    if not preset.conditional and classes != 1:
        raise UsageError(f"data.num_classes = {classes}: expected 1 with conditional = false")
    if preset.block % classes:
        raise UsageError(
            f"evaluation.block = {preset.block}: expected a multiple of the {classes} classes, so "
            "that every block holds each equally often"
        )
    for key in ("image_size", "image_width", "tokenizer_image_size"):
        size = getattr(preset, key)
        if size is not None and size % step:
            raise UsageError(
                f"data.{key} = {size}: expected a multiple of {step}, the pixels a side of one "
                f"code with {len(preset.tokenizer.multipliers)} tokenizer.multipliers"
            )
    low, high = preset.crop_scale
    if low > high:
        raise UsageError(f"data.crop_scale = {list(preset.crop_scale)}: the first is the lowest")
    if not preset.schedules or not preset.table_steps:
        raise UsageError("evaluation.schedules and table_steps: expected at least one")
    for schedule in preset.schedules:
        try:
            validate(schedule)
        except UsageError as error:
            raise UsageError(f"evaluation.schedules: {error}") from None


def preset_toml(preset: Preset) -> str:
    """The text of a file of this preset, without a base: what a job on another machine reads."""
    top = {key: getattr(preset, key) for key in ("name", "ships", "runs_folder")}
    lines = []
    for section, values in {"": top, "official": preset.official, **preset.sections()}.items():
        lines += ["", f"[{section}]"] if section else []
        lines += [f"{key} = {_toml(value)}" for key, value in values.items() if value is not None]
    return "\n".join(lines) + "\n"


def _toml(value: Any) -> str:
    if isinstance(value, float) and not math.isfinite(value):
        return "inf"
    if isinstance(value, Path):
        value = str(value if _names_data(str(value)) else value.absolute())
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
