"""The perceptual loss with a backbone of the right shape in torchvision's file format."""

import pytest
import torch

from maskgit.common.errors import UsageError
from maskgit.model.perceptual import BACKBONE_FILE, PerceptualLoss


def test_it_is_lpips_with_the_backbone_of_the_file(tmp_path):
    lpips = pytest.importorskip("lpips")
    torch.manual_seed(0)
    own = lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False).eval()
    state = {f"features.{n.split('.', 1)[1]}": p.data for n, p in own.net.named_parameters()}
    torch.save(state, tmp_path / BACKBONE_FILE)
    loss = PerceptualLoss(tmp_path)
    images, others = torch.rand(2, 1, 32, 32), torch.rand(2, 1, 32, 32)
    with torch.no_grad():
        expected = own(*(x.expand(-1, 3, -1, -1) * 2 - 1 for x in (images, others)))
    others.requires_grad_(True)
    found = loss(others, images)
    assert torch.allclose(found, expected, rtol=1e-4)
    assert float(loss(images, images).abs().max()) == 0.0
    found.sum().backward()
    assert float(others.grad.abs().sum()) > 0
    torch.save({"features.0.weight": torch.zeros(1)}, tmp_path / BACKBONE_FILE)
    with pytest.raises(UsageError, match=r"features\.0\.weight is missing or misshapen"):
        PerceptualLoss(tmp_path)


def test_missing_weights_are_one_line_that_says_where_they_go(tmp_path):
    with pytest.raises(UsageError, match=f"{BACKBONE_FILE}.*perceptual weight is 0"):
        PerceptualLoss(tmp_path)
