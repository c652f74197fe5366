"""Named configurations: plain functions whose docstrings say what they cost and give.

`embedded` runs on a laptop; `imagenet256`, `imagenet512` and `places2` are the paper's. Each of
their values carries a source: "paper" is Chang et al. 2022 with its section or table, "official"
the configuration files of google-research/maskgit (maskgit/configs/*.py). Where the two differ, the
official value is the default, because it made the released weights, and the comment names the other
one; only the number of epochs is the paper's. docs/models.md compares them point by point.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace

from maskgit.common.errors import UsageError
from maskgit.model.config import TokenizerConfig, TransformerConfig, TransformerShape
from maskgit.training.settings import Optimisation, TokenizerLoss

# Fashion-MNIST's classes, in its order.
FASHION_CLASSES = (
    *("T-shirt", "trousers", "pullover", "dress", "coat"),
    *("sandal", "shirt", "sneaker", "bag", "ankle boot"),
)
# The seven functions of the paper's Table 3, from the most concave to the most convex.
PAPER_SCHEDULES = ("exponential", "cubic", "square", "cosine", "linear", "sqrt", "logarithmic")


@dataclass(frozen=True)
class Preset:
    """Everything that a name like `embedded` stands for."""

    name: str
    num_classes: int
    image_size: int
    tokenizer: TokenizerConfig
    tokenizer_loss: TokenizerLoss
    tokenizer_training: Optimisation
    transformer: TransformerShape
    transformer_training: Optimisation
    features: str
    reference: str
    num_samples: int
    class_names: tuple[str, ...]
    label_smoothing: float = 0.1
    choice_temperature: float = 4.5
    schedules: tuple[str, ...] = field(default=PAPER_SCHEDULES)
    min_mask_ratio: float = 0.0  # lower bound of the mask ratio in training
    decoding_steps: int = 12  # T where no flag gives it
    data: str = "fashion-mnist"  # kind of data, a name of maskgit.data.registry.DATA_SETS
    ships: bool = False  # the weights come with the package, in maskgit/zoo, stored in float16
    # Folder of training below runs/weights and runs/tokens; None: the preset's name.
    runs_folder: str | None = None
    conditional: bool = True  # False: the data's classes are not used, every label is 0
    train_images: int = 60_000  # one epoch
    tokenizer_image_size: int | None = None  # side of stage 1's crops; None: image_size
    crop: str = "none"  # or "random-resized" or "center", in both stages
    crop_scale: tuple[float, float] = (1.0, 1.0)  # share of the area, for "random-resized"
    flip: bool = False  # mirror every second crop
    precision_recall_features: str | None = None  # feature network; None: `features`
    # What the experiments take where no flag says otherwise.
    held_out: int | None = None  # held-out images of a table; None: all there are
    table_samples: int | None = None  # samples a row of Tables 1, 4 and 5; None: num_samples
    table_steps: tuple[int, ...] = (8, 12)  # T of Tables 1 and 5; Table 4 takes the first
    cas_samples: int = 0  # images that a classifier of the CAS is trained on; 0: no CAS
    diversity_features: str | None = None  # feature network of Table 5; None: `features`
    rejection_classifier: str | None = "resnet50"  # scores samples; None: the `features` network
    official: Mapping[str, str] = field(default_factory=dict, hash=False)  # role -> released file

    @property
    def grid(self) -> tuple[int, int]:
        """Height and width of the code grid."""
        side = self.image_size // self.tokenizer.downsampling
        return side, side

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


def embedded() -> Preset:
    """Fashion-MNIST at 32x32, 8x8 = 64 tokens, 512 codes; weights in maskgit/zoo.

    `python -m maskgit.training tokenizer|tokenize|transformer --preset embedded`. The model cards
    in maskgit/zoo hold the budget, the time and the final losses of the shipped weights.

    Differences from the official recipe, for a budget of minutes on two cores: no perceptual and
    no adversarial loss, higher learning rates with a cosine decay, Adam's first beta 0.9 and a
    tenth of the entropy loss in stage 1 (lower error in trials of some hundred steps), no dropout
    (each model sees the data a few times only), dead codes are revived.
    """
    return Preset(
        name="embedded",
        ships=True,
        runs_folder="",
        num_classes=10,
        image_size=32,
        tokenizer=TokenizerConfig(
            channels=1,
            filters=32,
            multipliers=(1, 2, 2),
            blocks=1,
            num_codes=512,
            code_dim=32,
            norm_groups=8,
        ),
        tokenizer_loss=TokenizerLoss(
            entropy=0.01, perceptual=0.0, adversarial=0.0, revive_every=100
        ),
        tokenizer_training=Optimisation(
            steps=2400,
            batch_size=64,
            learning_rate=2e-3,
            warmup_steps=100,
            decay="cosine",
            betas=(0.9, 0.99),
            weight_decay=0.0,
        ),
        transformer=TransformerShape(width=128, layers=4, heads=4, mlp=512, dropout=0.0),
        transformer_training=Optimisation(
            steps=1200,
            batch_size=128,
            learning_rate=2e-3,
            warmup_steps=100,
            decay="cosine",
            ema=0.995,
        ),
        features="fashion-resnet",
        reference="fashion-mnist-train",
        num_samples=100,  # for a first look; the tables take more
        held_out=2000,  # of 10,000: as many as samples
        table_samples=2000,
        cas_samples=4000,
        diversity_features="efficientnet-lite0",  # stands in for Inception, which does not ship
        rejection_classifier=None,  # fashion-resnet knows the classes, ResNet-50 does not
        class_names=FASHION_CLASSES,
    )


def imagenet256() -> Preset:
    """ImageNet at 256x256, 16x16 = 256 tokens: the model of Tables 1, 3 and 5 and Figure 8.

    Released weights: `python -m maskgit.checkpoints fetch --preset imagenet256`, then
    `python experiments/ablate_schedule.py --preset imagenet256 --schedules cosine --T 8`. Own
    training, on image folders and GPUs: `python -m maskgit.training tokenizer|tokenize|transformer
    --preset imagenet256 --data FOLDER`, with `--heads 8` for the paper's printed number of heads.

    Cost: the paper trained for 300 epochs on 4x4 TPU devices (section 4.1). 227M parameters (Table
    1) are 172,457,193 of the transformer and 54,515,587 of the tokenizer
    (tests/maskgit/test_presets.py).

    Expected: FID 6.18, IS 182.1 at T=8 (Table 1); FID 6.06, IS 181.5 at T=10 (Table 3); precision
    and recall 0.80 and 0.51 on VGG16 features (Table 1), 0.78 and 0.50 on Inception's (Table 5);
    released weights FID 6.06, reconstruction FID 2.28 (official README). Published values: nothing
    here was measured by us.
    """
    images = 1_281_167  # training set of ILSVRC 2012
    return Preset(
        name="imagenet256",
        num_classes=1000,  # official: num_class
        image_size=256,  # paper 4.1; official: image_size
        tokenizer=_official_tokenizer(),
        tokenizer_loss=_official_tokenizer_loss(),
        tokenizer_training=_official_tokenizer_training(),
        transformer=_official_transformer(),
        transformer_training=_official_transformer_training(epochs=300, images=images),  # paper 4.1
        features="inception-v3-compat",  # FID and IS as everyone reports them, TF's Inception
        reference="imagenet256-train",  # ours: the paper does not name its reference set
        num_samples=50_000,  # paper, Table 1's caption; official: eval_num
        class_names=tuple(f"class {i}" for i in range(1000)),  # no list of names is shipped
        label_smoothing=0.1,  # paper 4.1; official: label_smoothing
        choice_temperature=4.5,  # official: sample_choice_temperature; the paper gives none
        min_mask_ratio=0.5,  # official: min_masking_rate; the paper has no bound (then 0)
        decoding_steps=8,  # paper, Table 1; official: 16 in inference.py's generation
        data="imagefolder",
        train_images=images,
        tokenizer_image_size=256,  # paper 4.1: one tokenizer, on 256x256 crops
        crop="random-resized",  # paper 4.1: "RandomResizeAndCrop"
        crop_scale=(0.8, 1.0),  # ours: neither source gives the range
        flip=True,  # ours: neither source names it
        precision_recall_features="vgg16",  # paper, Table 1 (Table 5: Inception)
        official={
            "tokenizer": "tokenizer_imagenet256_checkpoint",
            "transformer": "maskgit_imagenet256_checkpoint",
        },
    )


def imagenet512() -> Preset:
    """ImageNet at 512x512, 32x32 = 1024 tokens: the lower half of Table 1.

    `python -m maskgit.checkpoints fetch --preset imagenet512`, and further as for `imagenet256`.
    Cost: 300 epochs on 4x4 TPU devices (section 4.1). The transformer has 173,047,017 parameters:
    768 more positions than at 256x256, each 768 wide.

    Expected: FID 7.32, IS 156.0, precision 0.78, recall 0.50 at T=12 (Table 1); released weights
    FID 7.32, reconstruction FID 1.97 (official README). Published values: nothing here was measured
    by us.
    """
    return replace(
        imagenet256(),
        name="imagenet512",
        image_size=512,  # paper 4.1; official: the sweep in maskgit_class_cond_config.py
        reference="imagenet512-train",
        decoding_steps=12,  # paper, Table 1
        table_steps=(12,),
        official={
            "tokenizer": "tokenizer_imagenet512_checkpoint",
            "transformer": "maskgit_imagenet512_checkpoint",
        },
    )


def places2() -> Preset:
    """Places2 at 512x512, the model for inpainting and outpainting of Table 2.

    `python -m maskgit.training tokenizer|tokenize|transformer --preset places2 --data FOLDER`; no
    weights and no configuration of it were released. "All hyperparameters are kept the same" as for
    ImageNet (section 4.3), but for 200 epochs (4.1) and center crops of 512x512 (4.3).

    The paper does not say what the model is conditioned on. Here it is on nothing: inpainting and
    outpainting of a user's image come without a scene label, and so do the methods of Table 2.
    There is one class, 0, and the sequence keeps its shape. For a model of the 365 scenes:
    `dataclasses.replace(places2(), num_classes=365, conditional=True, class_names=...)`.

    Expected: outpainting the right half FID 6.78, IS 11.69, inpainting the central 50% x 50% FID
    7.92, IS 22.95 (Table 2). Published values: nothing here was measured by us.
    """
    images = 1_803_460  # Places365-Standard; ours: the paper does not name the subset
    return replace(
        imagenet512(),
        name="places2",
        num_classes=1,
        class_names=("scene",),
        conditional=False,
        transformer_training=_official_transformer_training(epochs=200, images=images),  # paper 4.1
        train_images=images,
        reference="places2-val",  # paper 4.3: evaluated on the validation set
        crop="center",  # paper 4.3
        crop_scale=(1.0, 1.0),
        official={},
    )


def _official_tokenizer() -> TokenizerConfig:
    """The VQGAN of official vqgan_config.py; the paper gives f=16 and 1024 codes (section 4.1)."""
    return TokenizerConfig(
        channels=3,
        filters=128,  # official: vqvae.filters
        multipliers=(1, 1, 2, 2, 4),  # official: vqvae.channel_multipliers; f = 16 as in paper 4.1
        blocks=2,  # official: vqvae.num_res_blocks
        num_codes=1024,  # paper 4.1; official: vqvae.codebook_size
        code_dim=256,  # official: vqvae.embedding_dim
        norm_groups=32,  # official: norm_type "GN", whose default in flax is 32 groups
    )


def _official_tokenizer_loss() -> TokenizerLoss:
    """Weights from official vqgan_config.py; the paper gives none."""
    return TokenizerLoss(
        commitment=0.25,  # vqvae.commitment_cost
        codebook=1.0,  # nets/vqgan_tokenizer.py: q_latent_loss has no factor
        entropy=0.1,  # vqvae.entropy_loss_ratio
        perceptual=0.1,  # perceptual_loss_weight; its network was not released, ours is LPIPS
        adversarial=0.1,  # vqgan.g_adversarial_loss_weight
        adversarial_start=0,  # no delay is configured
        r1=10.0,  # vqgan.grad_penalty_cost
        revive_every=0,  # the official code has no such thing
    )


def _official_tokenizer_training() -> Optimisation:
    """Official vqgan_config.py and base_config.py; the paper gives the batch size only."""
    return Optimisation(
        steps=1_000_000,  # num_train_steps
        batch_size=256,  # batch_size; paper 4.1
        learning_rate=1e-4,  # optimizer.g_lr and d_lr
        warmup_steps=0,  # lr_schedule "constant"
        decay="constant",
        betas=(0.0, 0.99),  # optimizer.beta1, beta2
        weight_decay=0.0,  # none is configured
        ema=0.999,  # base_config.py: polyak_decay
        clip_norm=math.inf,  # none is configured
    )


def _official_transformer() -> TransformerShape:
    """Paper 4.1 and official maskgit_class_cond_config.py."""
    return TransformerShape(
        width=768,  # paper 4.1; official: num_embeds
        layers=24,  # paper 4.1; official: num_layers
        heads=16,  # official: num_heads, and the released weights; paper 4.1 prints 8
        mlp=3072,  # paper 4.1; official: intermediate_size
        dropout=0.1,  # paper 4.1; official: dropout_rate
    )


def _official_transformer_training(epochs: int, images: int) -> Optimisation:
    """Paper 4.1 and official maskgit_class_cond_config.py, for a number of epochs."""
    batch_size = 256  # paper 4.1; official: batch_size
    return Optimisation(
        # The official num_train_steps is 2,000,000, which is 400 epochs of ImageNet.
        steps=math.ceil(epochs * images / batch_size),
        batch_size=batch_size,
        learning_rate=1e-4,  # official: optimizer.lr; the paper gives none
        warmup_steps=5000,  # official: optimizer.warmup_steps
        decay="constant",  # official: optimizer.lr_schedule
        betas=(0.9, 0.96),  # paper 4.1; official: optimizer.beta1, beta2
        weight_decay=0.045,  # official: optimizer.weight_decay; the paper gives none
        ema=0.999,  # official: polyak_decay; the paper does not mention an average
        clip_norm=math.inf,  # none is configured
    )


PRESETS: dict[str, Callable[[], Preset]] = {
    "embedded": embedded,
    "imagenet256": imagenet256,
    "imagenet512": imagenet512,
    "places2": places2,
}


def get_preset(name: str, heads: int | None = None) -> Preset:
    """The preset of that name, with another number of attention heads if `heads` is given.

    Raises:
        UsageError: no such preset, and the message lists the names; or `heads` does not fit.
    """
    if name not in PRESETS:
        raise UsageError(f"--preset {name}: expected one of {', '.join(sorted(PRESETS))}")
    preset = PRESETS[name]()
    return preset if heads is None else preset.with_heads(heads)
