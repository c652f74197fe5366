"""The cells of the studies behind Tables 1, 4 and 5: tasks, and the protocol of the report."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from experiments.engine.grid import parse_integers
from experiments.studies import cas
from experiments.studies.draws import sampling
from experiments.studies.real_images import VALIDATION, real_images
from maskgit.common.errors import UsageError

if TYPE_CHECKING:
    from experiments.engine.cells import Task
    from experiments.rejection_sampling import Options as RejectionSampling
    from experiments.studies.base import Study
    from experiments.studies.options import StudyOptions, TableOptions

Tasks = tuple[list["Task"], dict[str, Any]]

QUICK_SAMPLES, EMBEDDED_SAMPLES = 200, 2000
CAS_SAMPLES, QUICK_CAS_SAMPLES, QUICK_EPOCHS = 4000, 400, 4
COLUMNS, SHOWN = 4, 10  # pictures of a class, classes
PAPER_STEPS = 8  # of Table 1 at 256 x 256; embedded takes them too
MORE_STEPS = 12  # of Table 1 at 512 x 512


def main_features(options: StudyOptions) -> list[str]:
    """(features of FID and IS, features of precision and recall), each once."""
    from maskgit.presets import get_preset

    preset = get_preset(options.preset)
    first = options.features or preset.features
    return list(dict.fromkeys([first, preset.precision_recall_features or first]))


def sample_count(study: Study, options: StudyOptions) -> int:
    """--num-samples, or the preset's; on embedded more, as its own number is for demonstrations.

    Raises:
        UsageError: not the same number of each class.
    """
    preset = study.preset
    usual = EMBEDDED_SAMPLES if preset.name == "embedded" else preset.num_samples
    count = options.num_samples or (QUICK_SAMPLES if options.quick else usual)
    if count % preset.num_classes:
        raise UsageError(
            f"--num-samples {count}: expected a multiple of the {preset.num_classes} classes"
        )
    return count


def iterations(study: Study, text: str) -> list[int]:
    """--T: by default the paper's number for the preset, and 12."""
    if text:
        return parse_integers(text, "--T", 1, 4 * study.preset.num_tokens)
    return sorted({usual_steps(study), MORE_STEPS})


def usual_steps(study: Study) -> int:
    """The paper's T for the preset."""
    preset = study.preset
    return PAPER_STEPS if preset.name == "embedded" else preset.decoding_steps


def class_conditional_tasks(study: Study, options: TableOptions, absent: str) -> Tasks:
    """absent: why there is no baseline."""
    preset, count = study.preset, sample_count(study, options)
    samplers = [("maskgit", T) for T in iterations(study, options.T)]
    samplers += [] if absent else [("autoregressive", preset.num_tokens)]
    features = main_features(options)
    every = max(1, preset.num_classes // SHOWN)
    shown = {"shown": list(range(0, preset.num_classes, every))[:SHOWN], "columns": COLUMNS}
    tasks = [
        study.task(
            {
                "part": "measure",
                **sampling(sampler, T, seed, count, options.choice_temperature),
                "features": [features[0], features[-1]],
                **shown,
            },
            cost=count * (T + 4),
            size=count,
        )
        for sampler, T in samplers
        for seed in options.seed_list()
    ]
    real = real_images(preset, options.data)
    picture = {"part": "pictures", **shown, "real_images": real.sha256[:16]}
    tasks.append(study.task(picture, cost=COLUMNS * SHOWN, size=COLUMNS * SHOWN))
    more, protocol = _cas(study, options, count, samplers, rand=True)
    return tasks + more, _protocol(study, absent, count, protocol)


def diversity_tasks(study: Study, options: TableOptions, absent: str) -> Tasks:
    """absent: why there is no baseline."""
    preset, count = study.preset, sample_count(study, options)
    samplers = [("maskgit", T) for T in iterations(study, options.T)]
    samplers += [] if absent else [("autoregressive", preset.num_tokens)]
    name = study.features[0]
    real = real_images(preset, options.data)
    tasks = [
        study.task(
            {
                "part": "measure",
                **sampling(sampler, T, seed, count, options.choice_temperature),
                "features": name,
                "real_images": real.sha256[:16],
            },
            cost=count * (T + 30),
            size=count,
        )
        for sampler, T in samplers
        for seed in options.seed_list()
    ]
    more, protocol = _cas(study, options, count, samplers, rand=False)
    protocol |= {"network": name, "real_features": real.words}
    protocol = _protocol(study, absent, count, protocol)
    if not study.request.sides[name].no_features:  # it takes features of real images, no reference
        protocol.get("missing", {}).pop(f"FID, KID, precision and recall on {name}", None)
    return tasks + more, protocol


def _cas(
    study: Study,
    options: TableOptions,
    count: int,
    samplers: list[tuple[str, int]],
    rand: bool,
) -> Tasks:
    """The CAS cells and what the report says of them."""
    samples = options.cas_samples
    if samples is None:
        usual = QUICK_CAS_SAMPLES if options.quick else CAS_SAMPLES
        samples = usual if study.preset.name == "embedded" else 0
    real = real_images(study.preset, options.data)
    epochs = options.cas_epochs or (QUICK_EPOCHS if options.quick else 0)
    validation = options.cas_validation or (1000 if options.quick else VALIDATION)
    settings = cas.cas_settings(
        study, real, samples=samples, epochs=epochs, rand=rand, validation=validation
    )
    if not settings:
        return [], {"why_no_cas": cas.why_no_cas(study, real, samples)}
    samples = settings["cas_samples"]
    tasks = []
    for seed in parse_integers(options.cas_seeds, "--cas-seeds", 0, 2**32 - 1):
        for sampler, T in [*samplers, (cas.REAL, 0)]:
            drawn = {"sampler": cas.REAL, "steps": 0, "seed": seed}
            if sampler != cas.REAL:
                drawn = sampling(sampler, T, seed, count, options.choice_temperature)
            cell = {"part": "cas", **drawn, **settings}
            tasks.append(study.task(cell, cost=samples * (T + cas.COST), size=samples))
    words = {"cas_samples": samples, "cas_real": real.words}
    words["cas_validation"] = settings["validation"]
    return tasks, words


def rejection_tasks(study: Study, options: RejectionSampling, classifier: str) -> Tasks:
    """classifier: sha256 of its weights."""
    count, T = sample_count(study, options), options.steps or usual_steps(study)
    rates = parse_rates(options.rates)
    tasks = [
        study.task(
            {
                **sampling("maskgit", T, seed, count, options.choice_temperature),
                "rates": rates,
                "features": study.features[0],
                "classifier": options.classifier or study.features[0],
                "classifier_sha256": classifier[:16],
            },
            cost=count / min(rates) * (T + 8),
            size=int(count / min(rates)),
        )
        for seed in options.seed_list()
    ]
    return tasks, _protocol(study, "", count, {"steps": T})


def parse_rates(text: str) -> list[float]:
    """Acceptance rates such as 1,0.5,0.05, falling, each once.

    Raises:
        UsageError: something else, or outside (0, 1].
    """
    from eval.rejection import check_rate

    try:
        rates = [float(word) for word in text.split(",")]
    except ValueError:
        raise UsageError(f"--rates {text}: expected numbers such as 1,0.5,0.05") from None
    for rate in rates:
        check_rate(rate)
    return sorted(set(rates), reverse=True)


def _protocol(study: Study, absent: str, count: int, more: dict[str, Any]) -> dict[str, Any]:
    missing = study.request.unavailable()
    missing |= {"the autoregressive baseline": absent} if absent else {}
    why = more.pop("why_no_cas", "")
    missing |= {"CAS": why} if why else {}
    return {"num_samples": count, **more, **({"missing": missing} if missing else {})}
