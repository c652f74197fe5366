"""LPIPS (Zhang et al. 2018): perceptual distance of two images, by a network's features.

The `lpips` package ships the learned linear heads (version 0.1); the ImageNet network below them
is torchvision's, found through `eval.weights.files`. The heads were learned on patches of 64x64.
Below that a distance can still be computed, down to MIN_SIDE, with feature maps of a few positions;
such numbers compare among themselves only. The protocol states the size.
"""

from __future__ import annotations

import contextlib
import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from eval.features.registry import check_pairs, load_network
from eval.metrics.metric import Metric
from eval.weights.files import checked_weights
from maskgit.common.device import check_device
from maskgit.common.errors import UsageError

# Its network stands in the id where others have the feature network: `METRIC.id("alex")`.
METRIC = Metric("lpips", 1, "LPIPS", 3, "lower", needs=frozenset({"held_out"}))
# net -> (its name in eval.weights.files, torchvision's constructor)
NETS = {
    "alex": ("alexnet", "alexnet"),
    "vgg": ("vgg16", "vgg16"),
    "squeeze": ("squeezenet1_1", "squeezenet1_1"),
}
MIN_SIDE = {"alex": 31, "vgg": 16, "squeeze": 17}  # pixels; the pooling layers need as many
CHUNK = 16


class LPIPS:
    """LPIPS with one of the three networks.

    Args:
        net: alex (the usual choice for measuring), vgg or squeeze.
        feature_weights: folder with the network's torchvision file; None looks where
            `eval.weights.files` says.
        device: torch device.

    Attributes:
        net: as given.
        protocol: what a number depends on (JSON-able).

    Raises:
        Unavailable: the network's weights are not here.
        UsageError: unknown net or device, or broken weights.
    """

    def __init__(
        self, net: str = "alex", feature_weights: str | Path | None = None, device: str = "cpu"
    ) -> None:
        if net not in NETS:
            raise UsageError(f"LPIPS {net!r}: expected one of {', '.join(NETS)}")
        self.net = net
        self.device = check_device(device)
        name, constructor = NETS[net]
        found = checked_weights(name, feature_weights)
        self.model = _model(net, constructor, found.path, name).to(self.device)
        self.protocol: dict[str, object] = {
            "lpips_net": net,
            "lpips_heads": "version 0.1",
            "lpips_input": "RGB (grey repeated) in [-1, 1], size as it is",
            "lpips_weights": found.name,
            "lpips_weights_sha256": found.sha256,
        }

    def distances(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Distances of pairs of images; 0 for equal ones, no upper bound.

        Args:
            first, second: (n, H, W, C), C of 1 or 3: uint8, or floating point in [-1, 1].

        Returns:
            float32 (n,).

        Raises:
            UsageError: shapes differ, another type or range, or images below MIN_SIDE.
        """
        import torch

        pair = check_pairs(first, second, ("LPIPS, first", "LPIPS, second"), (-1, 1))
        least = MIN_SIDE[self.net]
        height, width = pair[0].shape[1:3]
        if min(height, width) < least:
            raise UsageError(
                f"LPIPS with {self.net} takes images from {least}x{least}, got {width}x{height}"
            )
        results = []
        with torch.inference_mode():
            for start in range(0, len(pair[0]), CHUNK):
                a, b = (self._tensor(images[start : start + CHUNK]) for images in pair)
                count = len(a)
                results.append(self.model(_full(a), _full(b)).reshape(-1)[:count].cpu().numpy())
        return np.concatenate(results)

    def _tensor(self, images: np.ndarray) -> Any:
        import torch

        values = images.astype(np.float32)
        if images.dtype == np.uint8:
            values = values / 127.5 - 1
        tensor = torch.from_numpy(values).to(self.device).permute(0, 3, 1, 2)
        return tensor.expand(-1, 3, -1, -1).contiguous()


def _full(images: Any) -> Any:
    """CHUNK images: a distance must not depend on how many pairs come with it."""
    import torch

    missing = CHUNK - len(images)
    return torch.cat([images, images.new_zeros(missing, *images.shape[1:])]) if missing else images


def _model(net: str, constructor: str, path: Path, name: str) -> Any:
    """lpips' module with its own heads and the network in `path`."""
    import torchvision.models

    whole = load_network(getattr(torchvision.models, constructor), path, name)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")  # it calls torchvision the old way
        import lpips

        model = lpips.LPIPS(net=net, pnet_rand=True, verbose=False)
    for part in model.net.children():  # slices of torchvision's `features`, under its indices
        for index, layer in part.named_children():
            layer.load_state_dict(whole.features[int(index)].state_dict())
    return model.eval().requires_grad_(False)
