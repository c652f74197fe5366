"""The likelihood of held-out images, once per transformer: the NLL column of the paper's Table 3.

The held-out images are encoded; of each, ceil(gamma(r) N) tokens are masked, with r uniform in
[0, 1) from counter-based noise with a fixed seed and gamma the schedule that is decoded. NLL is the
mean cross-entropy over all masked tokens, over the whole vocabulary, unsmoothed.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np

from eval.metrics.likelihood import MaskedNLL
from experiments.sampler.imaging import as_tensor

if TYPE_CHECKING:
    from maskgit.model.tokenizer import Tokenizer
    from maskgit.model.transformer import Transformer

SEED = 0
# Images in one forward: at most CHUNK, and fewer where they have many tokens. Fixed, so that no
# flag changes the number.
CHUNK = 100
CHUNK_TOKENS = 6400


def encode_images(tokenizer: Tokenizer, batches: Iterable[np.ndarray]) -> np.ndarray:
    """Batches of images uint8 (m, H, W, C) -> tokens uint16 (n, N)."""
    device = tokenizer.quantizer.codebook.device
    tokens = []
    for images in batches:
        codes = tokenizer.encode(as_tensor(images, device)).flatten(1)
        tokens.append(codes.cpu().numpy().astype(np.uint16))
    return np.concatenate(tokens)


def negative_log_likelihood(
    transformer: Transformer, schedule: str, tokens: np.ndarray, labels: np.ndarray
) -> tuple[float, int]:
    """(nats per masked token, number of masked tokens) of tokens (n, N) with classes (n,)."""
    import torch

    from maskgit.model.masking import held_out_masks

    config = transformer.config
    device = transformer.word_embeddings.weight.device
    chunk = max(1, min(CHUNK, CHUNK_TOKENS // config.num_tokens))
    nll = MaskedNLL()
    with torch.inference_mode():
        for rows in torch.arange(len(tokens)).split(chunk):
            known = torch.from_numpy(tokens[rows.numpy()].astype(np.int64)).to(device)
            classes = torch.from_numpy(labels[rows.numpy()]).to(device)
            mask = held_out_masks(schedule, rows, config.num_tokens, SEED).to(device)
            inputs = known.masked_fill(mask, config.mask_id)
            sequence = torch.cat([config.num_codes + classes[:, None], inputs], dim=1)
            # The head at masked positions only: one row each, all of which count.
            logits = transformer.logits(transformer.hidden(sequence, mask))[None]
            counts = torch.ones(logits.shape[:2], dtype=torch.bool, device=device)
            nll.update(logits, known[mask][None], counts)
    return nll.value, nll.tokens
