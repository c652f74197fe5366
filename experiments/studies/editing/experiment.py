"""What editing asks: parts of held-out images filled by several methods, and boxes edited."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from eval.metrics.inception_score import SPLITS_FROM
from experiments.engine.cells import Build
from experiments.engine.grid import parse_integers, parse_names
from experiments.engine.options import ClassifierOptions, FillingOptions, MeasureOptions
from experiments.own import chosen_preset, usual_classes
from experiments.sampler.building import make_build
from experiments.sampler.resources import find_resources
from experiments.sampler.samplers import SAMPLERS
from experiments.studies.tables import BASELINE, BASELINE_WORDS, why_no_baseline
from maskgit.common.errors import UsageError

if TYPE_CHECKING:
    from maskgit.presets import Preset
    from maskgit.sampling.editing import Box

NAME = "editing"
QUICK_IMAGES = 100  # of a cell; else all held-out ones
SAMPLES = 4  # pictured of an input
BLEND = (
    "decoded pixels inside the mask, Gaussian blend of the latent mask outside it; "
    "edits: Gaussian blend of the latent box on both sides, as officially"
)


@dataclass(frozen=True)
class Options(FillingOptions, MeasureOptions, ClassifierOptions):
    """Editing, inpainting, outpainting: the paper's Table 2 and Figures 6, 7, 14 and 16 to 20."""

    usual_metrics: ClassVar[tuple[str, ...]] = ("fid", "is")

    tasks: str = "all"
    """Of outpaint-right, inpaint-center, outpaint-left, outpaint-top, outpaint-bottom,
    inpaint-large, surround-50, surround-31, strip."""
    start: int = 2
    """First iteration, of 0..T-1."""
    classes: str = "0,8,9"
    """Pictures show the first held-out image of each of these classes."""
    targets: str = "0,1,3,7,8,9"
    """Classes that the pictured images are edited into."""
    box: str = ""
    """TOP,LEFT,HEIGHT,WIDTH in pixels to edit. Default: most of the lower half."""

    def check(self) -> None:
        super().check()
        self.check_start(self.start)


def build(options: Options) -> Build:
    """The cells of every task and method, of their pictures, and of the edits."""
    from experiments.studies.filling import AUTOREGRESSIVE_TASKS, TASKS, library

    names = parse_names(options.tasks, "--tasks", list(TASKS))
    preset, seeds, absent = (
        chosen_preset(options),
        options.seed_list(),
        why_no_baseline(options),
    )
    # Before the images are counted: a preset without a number of its own takes all there are.
    samples = options.num_samples or options.held_out or preset.held_out or SPLITS_FROM
    samples = QUICK_IMAGES if options.quick else samples
    samplers = ["maskgit"] if absent else ["maskgit", BASELINE]
    features = options.features or preset.features
    resources = find_resources(
        NAME,
        options,
        samplers,
        metrics=dict.fromkeys(options.metric_list(samples), features),
        features=[features, options.classifier_name(preset)],
        held_out=True,
    )
    decoding = {"steps": options.T, "start": options.start, "precision": options.precision}
    count = options.image_count(resources.held_out, len(resources.held_out), QUICK_IMAGES)
    classes = usual_classes(options, "classes", resources.held_out.present())
    images = resources.held_out.first_of_classes(preset, "--classes", classes)
    labels = [int(resources.held_out.labels[i]) for i in images]
    shown = {"images": images, "labels": labels, "seed": seeds[0]}

    def measured(task: str, method: str, **more: Any) -> list[dict[str, Any]]:
        cell = {"part": "measure", "task": task, "method": method, "num_images": count, **more}
        return [{**cell, "seed": s} for s in (seeds if method in SAMPLERS else seeds[:1])]

    cells = [cell for method in ("real", "tokenizer") for cell in measured("none", method)]
    for name in names:
        baseline = name in AUTOREGRESSIVE_TASKS and not absent
        cells += measured(name, "maskgit", **decoding)
        cells += measured(name, BASELINE, precision=options.precision) if baseline else []
        cells += measured(name, "mean") + measured(name, "biharmonic", library=library())
        picture = {"part": "pictures", "task": name, "samples": SAMPLES, "library": library()}
        cells.append({**picture, "baseline": baseline, **shown, **decoding})
    if preset.conditional:
        cells += _edits(preset, options, seeds, count, {**shown, **decoding})
    tasks = [
        resources.task(c, cost=_cost(c, preset.num_tokens), size=c.get("num_images", 1))
        for c in cells
    ]
    protocol = {
        "num_images": count,
        "tasks": list(names),
        "classes_told": "the class of each input" if preset.conditional else "none",
        "hidden_pixels": "at the mean of the known ones when the input is encoded",
        "composite": BLEND,
        "biharmonic": library(),
        "classifier": options.classifier_name(preset),
        **decoding,
    }
    return make_build(resources, options, tasks, protocol, missing={BASELINE_WORDS: absent})


def _edits(
    preset: Preset, options: Options, seeds: Sequence[int], count: int, shown: dict[str, Any]
) -> list[dict[str, Any]]:
    from maskgit.sampling.editing import latent_box

    box = parse_box(options.box, *preset.size)
    if latent_box(box, preset.size, preset.tokenizer.downsampling).all():
        raise UsageError(f"--box {options.box}: covers every token; expected a part")
    targets = parse_integers(
        usual_classes(options, "targets", range(preset.num_classes)),
        "--targets",
        0,
        preset.num_classes - 1,
    )
    shared: dict[str, Any] = {"classifier": options.classifier_name(preset)}
    shared |= {"box": [box.top, box.left, box.height, box.width]}
    shared |= {name: shown[name] for name in ("steps", "start", "precision")}
    cells = [{"part": "edit", "num_images": count, "seed": seed, **shared} for seed in seeds]
    return [*cells, {"part": "edits", "targets": targets, **shared, **shown}]


def parse_box(text: str, height: int, width: int) -> Box:
    """TOP,LEFT,HEIGHT,WIDTH inside images of that size; empty: the lower half, less an eighth of
    the width on both sides.

    Raises:
        UsageError: anything else.
    """
    from maskgit.sampling.editing import Box

    if not text:
        return Box(height // 2, width // 8, height // 2, width - 2 * (width // 8))
    words = [word.strip() for word in text.split(",")]
    if len(words) != 4 or not all(word.isascii() and word.isdigit() for word in words):
        raise UsageError(f"--box {text}: expected TOP,LEFT,HEIGHT,WIDTH in pixels")
    box = Box(*map(int, words))
    box.check(height, width)
    return box


def _cost(cell: dict[str, Any], num_tokens: int) -> float:
    sampler = SAMPLERS.get(cell.get("method", ""))
    one_by_one = sampler is not None and sampler.step_per_token
    forwards = num_tokens if one_by_one else cell.get("steps", 1)
    images = cell.get("num_images", 0) or len(cell["images"]) * SAMPLES
    return float(images * (4 + forwards))
