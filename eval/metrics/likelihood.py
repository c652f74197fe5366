"""Negative log-likelihood of masked tokens, the NLL column of the paper's Table 3; nats per
masked token.

It takes logits, the true tokens and the mask, and knows nothing of schedules or models. The mean is
over all masked tokens of all images, so an image with more masked tokens weighs more (the official
training loss averages within an image first).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from eval.metrics.metric import Metric
from maskgit.common.errors import UsageError

if TYPE_CHECKING:
    import torch

# Neither direction is better: schedules mask differently, so their numbers rank no samples.
METRIC = Metric(
    "nll",
    1,
    "NLL",
    3,
    "",
    unit="nats per masked token",
    needs=frozenset({"held_out"}),
    id_form="nll.masked.v{version}",
)


class MaskedNLL:
    """Streaming sum over batches; `value` is the mean so far, `tokens` how many it is over."""

    def __init__(self) -> None:
        self.total = 0.0
        self.tokens = 0

    def update(self, logits: Any, targets: Any, mask: Any) -> None:
        """Add a batch.

        Args:
            logits: (n, N, V) array or tensor, logits or log-probabilities (a shift per position
                cancels).
            targets: (n, N) integers in 0..V-1.
            mask: (n, N) bool, True where the token was masked and counts.

        Raises:
            UsageError: shapes or types that do not fit, a target out of range, NaN where it counts.
        """
        logits, targets, mask = (_tensor(x) for x in (logits, targets, mask))
        _check(logits, targets, mask)
        chosen = logits[mask].double()
        if len(chosen) == 0:
            return
        log_p = chosen.log_softmax(1).gather(1, targets[mask].long()[:, None])
        if log_p.isnan().any():
            raise UsageError("logits: have NaN at masked positions")
        self.total -= log_p.sum().item()
        self.tokens += len(chosen)

    @property
    def value(self) -> float:
        """Mean negative log-likelihood in nats per masked token.

        Raises:
            UsageError: no masked token was seen.
        """
        if self.tokens == 0:
            raise UsageError("NLL: no masked token was given")
        return self.total / self.tokens


def _tensor(values: Any) -> torch.Tensor:
    import torch

    if isinstance(values, torch.Tensor):
        return values
    array = np.asarray(values)
    if array.dtype.kind == "u":  # stored tokens are uint16, for which torch lacks most operations
        array = array.astype(np.int64)
    return torch.from_numpy(array)


def _check(logits: torch.Tensor, targets: torch.Tensor, mask: torch.Tensor) -> None:
    if logits.ndim != 3 or targets.shape != logits.shape[:2] or mask.shape != logits.shape[:2]:
        shapes = ", ".join(str(tuple(x.shape)) for x in (logits, targets, mask))
        raise UsageError(f"NLL: expected logits (n, N, V), targets and mask (n, N), got {shapes}")
    if targets.is_floating_point() or str(mask.dtype) != "torch.bool":
        raise UsageError(
            f"NLL: expected integer targets and a bool mask, got {targets.dtype}, {mask.dtype}"
        )
    chosen = targets[mask]
    if len(chosen) and not 0 <= int(chosen.min()) <= int(chosen.max()) < logits.shape[2]:
        raise UsageError(
            f"NLL: targets {int(chosen.min())}..{int(chosen.max())} at masked positions, "
            f"expected 0..{logits.shape[2] - 1}"
        )
