"""Stage 2 for several mask schedules at once: the networks of an ablation in one step.

All networks see the same batch, ranks and uniforms; only the number of masked tokens differs, as
in separate runs with the same seed. Every parameter, its gradient, AdamW's moments and the moving
average are stacked, (S, ...) for S schedules. A GPU computes all networks in one pass at fixed
shapes; a CPU takes one after the other, with the head at masked positions only, which is faster
there and needs the memory of one network.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from maskgit.common.errors import UsageError
from maskgit.decoding import generate
from maskgit.model.config import TransformerConfig
from maskgit.model.masking import held_out_uniforms, ranks_and_counts
from maskgit.model.transformer import LAYER_NORM_EPS, Layer, Transformer
from maskgit.training.stage2 import MaskedLoss, masked_positions, step_uniforms
from maskgit.training.token_stage import TokenStage, recompute_activations, recomputed


class Stack(Transformer):
    """S transformers that start alike: the names of one, each parameter (S, ...)."""

    def __init__(self, config: TransformerConfig, count: int) -> None:
        super().__init__(config)
        self.count = count
        for parameter in self.parameters():
            parameter.data = parameter.data.expand(count, *parameter.shape).clone()

    @cached_property
    def networks(self) -> tuple[Transformer, ...]:
        """The S networks; their parameters are views of the stacked ones, with own gradients."""
        with torch.device("meta"):
            made = tuple(Transformer(self.config) for _ in range(self.count))
        for number, network in enumerate(made):
            part = {name: values[number] for name, values in self.state_dict().items()}
            network.load_state_dict(part, assign=True)
            network.train(self.training)
        return made

    def train(self, mode: bool = True) -> Stack:
        """As for any module; the views follow."""
        super().train(mode)
        for network in self.__dict__.get("networks", ()):
            network.train(mode)
        return self


class LossesInTurn(nn.Module):
    """The loss of each network, one after the other."""

    def __init__(self, stack: Stack, label_smoothing: float) -> None:
        super().__init__()
        self.losses = nn.ModuleList(MaskedLoss(x, label_smoothing) for x in stack.networks)

    def forward(self, labels: Tensor, tokens: Tensor, ranks: Tensor, counts: Tensor) -> Tensor:
        """labels (B,), tokens and ranks (B, N), counts (B, S) -> losses (S,) in nats."""
        inputs = (labels, tokens, ranks, counts)
        return torch.stack([self.of_network(s, *inputs) for s in range(len(self.losses))])

    def of_network(
        self, number: int, labels: Tensor, tokens: Tensor, ranks: Tensor, counts: Tensor
    ) -> Tensor:
        """The loss of one network, a scalar; arguments as for `forward`."""
        positions, weights = masked_positions(ranks < counts[:, number, None])
        return self.losses[number](labels, tokens, positions, weights)


class LossesAtOnce(nn.Module):
    """The same losses in one pass, at all positions: every shape depends on B only."""

    def __init__(self, stack: Stack, label_smoothing: float, recompute: bool = False) -> None:
        super().__init__()
        self.stack, self.label_smoothing, self.recompute = stack, label_smoothing, recompute

    def forward(self, labels: Tensor, tokens: Tensor, ranks: Tensor, counts: Tensor) -> Tensor:
        """See LossesInTurn."""
        config, (batch, length) = self.stack.config, tokens.shape
        number = counts.T[:, :, None]  # (S, B, 1)
        mask = ranks < number
        masked = torch.where(mask, config.mask_id, tokens)
        classes = (config.num_codes + labels[:, None]).expand(len(masked), batch, 1)
        logits = self.logits(torch.cat([classes, masked], 2)).float()
        each = F.cross_entropy(
            logits.flatten(0, 1),
            tokens.expand(len(masked), batch, length).flatten(),
            label_smoothing=self.label_smoothing,
            reduction="none",
        )
        return (each.view_as(mask) * mask / (number * batch)).sum((1, 2))

    def logits(self, tokens: Tensor) -> Tensor:
        """tokens (S, B, 1+N) int64 in [0, V) -> logits (S, B*N, V), as each network's `logits`."""
        stack, (count, batch, length) = self.stack, tokens.shape
        words = stack.word_embeddings.weight  # (S, V, width)
        first = len(words[0]) * torch.arange(count, device=tokens.device)[:, None, None]
        x = F.embedding(tokens + first, words.flatten(0, 1))
        x = x + stack.position_embeddings.weight[:, None]
        x = stack.dropout(_norm(x.flatten(1, 2), stack.embeddings_norm))
        for layer in stack.layers:
            inputs = (x, cast(Layer, layer), batch)
            x = recomputed(self._layer, *inputs) if self.recompute else self._layer(*inputs)
        x = x.view(count, batch, length, -1)[:, :, 1:].flatten(1, 2)
        x = _norm(_gelu(_linear(x, stack.head_dense)), stack.head_norm)
        return torch.baddbmm(stack.head_bias[:, None], x, words.mT)

    def _layer(self, x: Tensor, layer: Layer, batch: int) -> Tensor:
        """One layer of all networks: (S, B*L, width) -> the same, with one attention over S*B."""
        attention, (count, rows, width) = layer.attention, x.shape
        heads = attention.heads
        qkv = _linear(x, attention.qkv).view(count * batch, rows // batch, 3, heads, width // heads)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        dropout = attention.dropout if self.stack.training else 0.0
        mixed = F.scaled_dot_product_attention(query, key, value, dropout_p=dropout)
        mixed = mixed.transpose(1, 2).reshape(count, rows, width)
        x = _norm(x + layer.dropout(_linear(mixed, attention.out)), layer.attention_norm)
        inner = _gelu(_linear(x, layer.mlp_in))
        return _norm(x + layer.dropout(_linear(inner, layer.mlp_out)), layer.mlp_norm)


def _linear(x: Tensor, layer: nn.Linear) -> Tensor:
    return torch.baddbmm(layer.bias[:, None], x, layer.weight.mT)


def _norm(x: Tensor, layer: nn.LayerNorm) -> Tensor:
    normal = F.layer_norm(x, x.shape[-1:], eps=LAYER_NORM_EPS)
    return torch.addcmul(layer.bias[:, None], normal, layer.weight[:, None])


def _gelu(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


class JointStage(TokenStage):
    """One optimiser step of all networks a batch; each has its schedule, its loss and its clip."""

    averaged = "transformers"
    data_parallel = False  # `clip` takes the mean over processes

    def __init__(
        self, *args: Any, schedules: tuple[str, ...], min_mask_ratio: float = 0.0, **more: Any
    ):
        """schedules: one a network. The other arguments are those of TransformerStage."""
        self.schedules, self.min_mask_ratio = schedules, min_mask_ratio
        self.shape = (len(schedules),)
        super().__init__(*args, **more)

    @property
    def in_turn(self) -> bool:
        """Whether one network is computed after the other."""
        return self.accelerator.device.type == "cpu"

    def network(self, config: TransformerConfig) -> Stack:
        """See TokenStage."""
        if self.in_turn and self.options.compile:
            raise UsageError("--compile: expected a GPU to train several networks at once")
        return Stack(config, len(self.schedules))

    def recompute_activations(self) -> None:
        """See TokenStage."""
        if self.in_turn:
            for network in self.model.networks:
                recompute_activations(network.layers)

    def loss_module(self, label_smoothing: float) -> nn.Module:
        """See TokenStage."""
        if self.in_turn:
            return LossesInTurn(self.model, label_smoothing)
        return LossesAtOnce(self.model, label_smoothing, self.options.checkpoint_activations)

    def inputs(self, step: int) -> tuple[Tensor, ...]:
        """The ranks (B, N) of the whole batch, and how many of them each network masks, (B, S)."""
        size, tokens = self.optimisation.batch_size, self.preset.num_tokens
        uniforms = step_uniforms(self.options.seed, step, size, tokens)
        return ranks_and_counts(self.schedules, *uniforms, self.min_mask_ratio)

    def held_out_inputs(self, rows: Tensor) -> tuple[Tensor, ...]:
        """The same for held-out images."""
        return ranks_and_counts(self.schedules, *held_out_uniforms(rows, self.preset.num_tokens))

    def learn(self, inputs: list[Tensor], scale: float) -> Tensor:
        """See TokenStage. In turn, every network draws the dropout of a separate run."""
        if not self.in_turn:
            return super().learn(inputs, scale)
        state, losses = torch.get_rng_state(), []
        for number in range(len(self.schedules)):
            torch.set_rng_state(state)
            with self.accelerator.autocast():
                loss = cast(LossesInTurn, self.loss).of_network(number, *inputs)
            self.accelerator.backward(loss * scale)
            losses.append(loss.detach())
        return torch.stack(losses)

    @torch.no_grad()
    def clip(self) -> Tensor:
        """See TokenStage: of each network on its own, (S,)."""
        stacked = list(self.model.parameters())
        if self.in_turn:
            views = zip(*(x.parameters() for x in self.model.networks), strict=True)
            for parameter, parts in zip(stacked, views, strict=True):
                parameter.grad = torch.stack([x.grad for x in parts])
                for part in parts:
                    part.grad = None
        if self.accelerator.num_processes > 1:
            for parameter in stacked:
                parameter.grad = self.accelerator.reduce(parameter.grad, "mean")
        norms = []
        for gradients in zip(*(x.grad.unbind(0) for x in stacked), strict=True):
            norms.append(nn.utils.get_total_norm(gradients))
            factor = self.optimisation.clip_norm / (norms[-1] + 1e-6)  # as clip_grad_norm_ has it
            torch._foreach_mul_(gradients, factor.clamp(max=1.0))
        return torch.stack(norms)

    def named(self, name: str, values: Tensor) -> dict[str, Tensor]:
        """The mean over the networks under the name, and each network's under `name/schedule`."""
        each = zip(self.schedules, values.unbind(0), strict=True)
        return {name: values.mean(), **{f"{name}/{schedule}": x for schedule, x in each}}

    def sample(self, labels: Tensor) -> Tensor:
        """Tokens (S*B, N), network after network."""
        return torch.cat(
            [
                generate(
                    network,
                    labels,
                    steps=12,
                    schedule=schedule,
                    choice_temperature=self.preset.choice_temperature,
                    seed=self.options.seed,
                )
                for network, schedule in zip(self.model.networks, self.schedules, strict=True)
            ]
        )
