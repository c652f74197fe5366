"""Train and save `fashion-resnet`, the classifier that measures the embedded benchmark.

    python -m experiments.train_classifier      # 3 minutes on one core, 92.5% on the test images

Writes model.safetensors (float16), config.json, card.json and README.md to --out.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np

from maskgit.common.cli import exit_code, parse
from maskgit.data.fashion_mnist import load_split

ZOO = Path(__file__).parents[1] / "eval" / "zoo"


def run(
    data: Path | None = None,
    out: Path = ZOO / "fashion-resnet",
    epochs: float = 8,
    seed: int = 0,
    threads: int = 1,
) -> None:
    """Train the small Fashion-MNIST classifier.

    Args:
        data: folder with Fashion-MNIST's IDX files (default: the places maskgit.data.fashion_mnist
        knows). out: folder for the weights and their card.
        epochs: passes over the 60,000 training images.
        seed: of the initialisation, the order and the augmentation.
        threads: of torch; the numbers of a run are the same only with the same threads and
            versions.
    """
    import torch

    from eval.features import classifier_training as training

    torch.set_num_threads(threads)
    images, labels = load_split("train", data)
    test_images, test_labels = load_split("test", data)
    started = time.monotonic()

    def progress(step: int, steps: int, loss: float) -> None:
        if step % 100 == 0 or step == steps:
            left = (time.monotonic() - started) / step * (steps - step)
            print(f"step {step}/{steps}  loss {loss:.3f}  {left:.0f} s left", file=sys.stderr)

    model, loss = training.train(images, labels, epochs=epochs, seed=seed, progress=progress)
    state = training.half_precision(model)
    model.load_state_dict(state, strict=False)  # report the weights that are shipped
    test_accuracy = training.accuracy(model, test_images, test_labels)
    card = {
        "data": "Fashion-MNIST (MIT licence, Zalando SE), 60,000 training images padded to 32x32",
        "command": f"python -m experiments.train_classifier --epochs {epochs:g} --seed {seed} "
        f"--threads {threads}",
        "budget": {"epochs": epochs, "batch size": training.BATCH_SIZE, "threads": threads},
        "final_train_loss": loss,
        "test_accuracy": test_accuracy,
        "parameters": sum(p.numel() for p in model.parameters()),
        "versions": {
            "python": sys.version.split()[0],
            "torch": torch.__version__,
            "numpy": np.__version__,
        },
    }
    training.save_classifier(state, out, card)
    print(f"test accuracy {test_accuracy:.4f}  final training loss {loss:.4f}  saved to {out}")


if __name__ == "__main__":
    prog = "python -m experiments.train_classifier"
    sys.exit(exit_code(lambda: parse(run, sys.argv[1:], prog, __doc__)()))
