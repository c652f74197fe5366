"""Training of the autoregressive baseline, on the tokens and with the budget of stage 2.

The paper trains all its models with a label smoothing of 0.1, and that is the default here too. A
smoothed model gives a tenth of its probability to arbitrary codes. MaskGIT's confidence takes such
draws back; a sampler that keeps each token it draws cannot, so the shipped model is trained with
`--label-smoothing 0`.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from maskgit.model.causal import Autoregressive
from maskgit.model.config import TransformerConfig
from maskgit.sampling.autoregressive import generate_autoregressive
from maskgit.training.token_stage import TokenStage


class AutoregressiveLoss(nn.Module):
    """The training loss as one module, so that a data-parallel wrapper sees its forward."""

    def __init__(self, model: Autoregressive, label_smoothing: float):
        super().__init__()
        self.model, self.label_smoothing = model, label_smoothing

    def forward(self, labels: Tensor, tokens: Tensor) -> Tensor:
        """labels (B,) and tokens (B, N) -> scalar loss in nats.

        Cross-entropy of every token given those before it, with label smoothing over the codes,
        averaged over each image's N tokens and then over images.
        """
        logits = self.model(labels, tokens[:, :-1]).float()
        return F.cross_entropy(
            logits.flatten(0, 1), tokens.flatten(), label_smoothing=self.label_smoothing
        )


class AutoregressiveStage(TokenStage):
    """One optimiser step a batch of pre-computed tokens; optimiser and budget of the masked one."""

    averaged = "autoregressive"

    def network(self, config: TransformerConfig) -> Autoregressive:
        """See TokenStage."""
        return Autoregressive(config)

    def loss_module(self, label_smoothing: float) -> AutoregressiveLoss:
        """See TokenStage."""
        return AutoregressiveLoss(self.model, label_smoothing)

    def sample(self, labels: Tensor) -> Tensor:
        """See TokenStage."""
        return generate_autoregressive(self.model, labels, seed=self.options.seed)
