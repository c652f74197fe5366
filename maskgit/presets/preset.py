"""Everything that a name like `embedded` stands for, and what of it decides a number."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

from maskgit.common.class_lists import CLASS_LISTS
from maskgit.common.errors import UsageError
from maskgit.model.config import TokenizerConfig, TransformerConfig, TransformerShape
from maskgit.training.settings import Optimisation, TokenizerLoss

# The seven functions of the paper's Table 3, from the most concave to the most convex.
PAPER_SCHEDULES = ("exponential", "cubic", "square", "cosine", "linear", "sqrt", "logarithmic")


def _of(section: str, default: Any = MISSING, key: str = "") -> Any:
    """A field of a preset, and the section and the key of a preset's file where it stands."""
    return field(default=default, kw_only=True, metadata={"section": section, "key": key})


@dataclass(frozen=True)
class Preset:
    """Everything that a name like `embedded` stands for."""

    name: str
    tokenizer: TokenizerConfig
    tokenizer_loss: TokenizerLoss
    tokenizer_training: Optimisation
    transformer: TransformerShape
    transformer_training: Optimisation
    num_classes: int = _of("data")
    image_size: int = _of("data")  # pixels a side, or the height where there is a width
    image_width: int | None = _of("data", None)
    data: str = _of("data", "images", key="kind")  # of maskgit.data.registry.DATA_SETS
    path: Path | None = _of("data", None)  # noqa: RUF009  # the images, where --data is silent
    class_names: tuple[str, ...] = _of("data", ())
    class_list: str = _of("data", "")  # of maskgit.common.class_lists; gives names and folders
    conditional: bool = _of("data", True)  # False: classes are not used, every label is 0
    train_images: int = _of("data", 60_000)  # one epoch
    tokenizer_image_size: int | None = _of("data", None)  # of stage 1's crops; None: image_size
    crop: str = _of("data", "none")  # or "random-resized" or "center", in both stages
    crop_scale: tuple[float, float] = _of("data", (1.0, 1.0))  # of the area, if random-resized
    flip: bool = _of("data", False)  # mirror every second crop
    skip_broken: bool = _of("data", False)  # leave out files that are no images
    label_smoothing: float = _of("transformer_training", 0.1)
    min_mask_ratio: float = _of("transformer_training", 0.0)  # lower bound of the mask ratio
    # What the experiments take where no flag says otherwise.
    features: str = _of("evaluation", "")  # the feature network
    reference: str = _of("evaluation", "")
    reference_split: str = _of("evaluation", "train")  # whose images the reference is made of
    num_samples: int = _of("evaluation", 1000)
    # Samples made, kept and shared together, and what errors of metrics are computed from; in a
    # file by default the least from 100 on that holds every class equally often.
    block: int = _of("evaluation", 1000)
    choice_temperature: float = _of("evaluation", 4.5)
    schedules: tuple[str, ...] = _of("evaluation", PAPER_SCHEDULES)
    decoding_steps: int = _of("evaluation", 12)  # T
    precision_recall_features: str | None = _of("evaluation", None)  # None: `features`
    held_out: int | None = _of("evaluation", None)  # held-out images of a table; None: all
    table_samples: int | None = _of("evaluation", None)  # of Tables 1, 4, 5; None: num_samples
    table_steps: tuple[int, ...] = _of("evaluation", (8, 12))  # T of Tables 1 and 5; 4: the first
    cas_samples: int = _of("evaluation", 0)  # that a classifier of the CAS learns from; 0: no CAS
    diversity_features: str | None = _of("evaluation", None)  # of Table 5; None: `features`
    rejection_classifier: str | None = _of("evaluation", None)  # None: the `features` network
    ships: bool = False  # the weights come with the package, in maskgit/zoo, stored in float16
    # Folder of training below runs/weights and runs/tokens; None: the preset's name.
    runs_folder: str | None = None
    official: Mapping[str, str] = field(default_factory=dict, hash=False)  # role -> released file

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of an image."""
        return self.image_size, self.image_width or self.image_size

    @property
    def crop_size(self) -> tuple[int, int]:
        """Height and width of what stage 1 is trained on."""
        side = self.tokenizer_image_size
        return self.size if side is None else (side, side)

    @property
    def grid(self) -> tuple[int, int]:
        """Height and width of the code grid."""
        step = self.tokenizer.downsampling
        return self.size[0] // step, self.size[1] // step

    @property
    def weights_folder(self) -> Path:
        """Where trained networks go, and are looked for, unless a flag says otherwise."""
        return Path("runs/weights" if self.runs_folder == "" else f"runs/{self.name}/weights")

    @property
    def num_tokens(self) -> int:
        return self.grid[0] * self.grid[1]

    @property
    def num_codes(self) -> int:
        return self.tokenizer.num_codes

    @property
    def channels(self) -> int:
        return self.tokenizer.channels

    @property
    def transformer_config(self) -> TransformerConfig:
        """The sizes of stage 2, which the autoregressive baseline shares."""
        return TransformerConfig(
            num_codes=self.num_codes,
            num_classes=self.num_classes,
            num_tokens=self.num_tokens,
            **asdict(self.transformer),
        )

    def sections(self) -> dict[str, dict[str, Any]]:
        """Every setting as it stands in a preset's file: section -> key -> plain data."""
        found: dict[str, dict[str, Any]] = {}
        for item in fields(self):
            value = getattr(self, item.name)
            if is_dataclass(value) and not isinstance(value, type):
                found.setdefault(item.name, {}).update(asdict(value))
            elif section := item.metadata.get("section"):
                found.setdefault(section, {})[item.metadata["key"] or item.name] = value
        return found

    def content(self) -> dict[str, Any]:
        """What stands for the preset in a key: its settings as plain JSON, without name and path.

        A number beyond JSON, such as a clip_norm that never clips, is its text.
        """
        found = json.loads(json.dumps(self.sections(), default=str), parse_constant=str)
        del found["data"]["path"]
        return found

    @property
    def class_folders(self) -> tuple[str, ...]:
        """Names that the folders of the classes must have, in their order; none: any names."""
        if not self.class_list:
            return ()
        folders = CLASS_LISTS[self.class_list]().folders
        return folders if len(folders) == self.num_classes else ()

    @property
    def augments(self) -> bool:
        """Whether training sees other crops of an image in every epoch."""
        return self.crop == "random-resized" or self.flip

    @property
    def epochs(self) -> float:
        """Passes over the training images in stage 2."""
        budget = self.transformer_training
        return budget.steps * budget.batch_size / self.train_images

    def with_heads(self, heads: int) -> Preset:
        """The same with another number of attention heads, such as the paper's 8 for our 16.

        Raises:
            UsageError: heads is no divisor of the width.
        """
        width = self.transformer.width
        if isinstance(heads, bool) or heads < 1 or width % heads:
            raise UsageError(
                f"--heads {heads}: expected a divisor of the width {width} of --preset {self.name}"
            )
        return replace(self, transformer=replace(self.transformer, heads=heads))
