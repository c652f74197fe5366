"""The perceptual loss of stage 1: LPIPS, where its backbone's weights are on this machine."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from maskgit.common.errors import UsageError

BACKBONE_FILE = "vgg16-397923af.pth"  # torchvision's file name; LPIPS itself ships the heads


class PerceptualLoss(nn.Module):
    """LPIPS (vgg) between two batches of images (B, C, H, W) in [0, 1]; grey becomes three equal
    channels. Gradients reach the first argument only through frozen weights."""

    def __init__(self, weights_dir: Path | None = None):
        super().__init__()
        folder = Path(weights_dir) if weights_dir else Path(torch.hub.get_dir()) / "checkpoints"
        path = folder / BACKBONE_FILE
        if not path.is_file():
            raise UsageError(
                f"{path}: weights of the perceptual loss are missing; put torchvision's "
                f"{BACKBONE_FILE} there, or train with a preset whose perceptual weight is 0"
            )
        import lpips

        self.net = lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False)
        state = torch.load(path, map_location="cpu", weights_only=True)
        self._load_backbone(state)
        self.requires_grad_(False).eval()

    def _load_backbone(self, state: dict[str, Tensor]) -> None:
        """lpips slices VGG's `features` but keeps the layers' numbers: names map one to one."""
        for name, parameter in self.net.net.named_parameters():
            _, index, kind = name.split(".")
            source = state.get(f"features.{index}.{kind}")
            if source is None or source.shape != parameter.shape:
                raise UsageError(
                    f"{BACKBONE_FILE}: features.{index}.{kind} is missing or misshapen"
                )
            parameter.data.copy_(source)

    def forward(self, reconstruction: Tensor, images: Tensor) -> Tensor:
        """Returns one distance an image, (B, 1, 1, 1)."""
        pair = []
        for x in (reconstruction, images):
            x = x.expand(-1, 3, -1, -1) if x.shape[1] == 1 else x
            pair.append(x * 2.0 - 1.0)
        return self.net(*pair)
