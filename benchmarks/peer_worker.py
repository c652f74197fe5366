"""One contender of benchmarks/peers.py, which starts this file and takes turns with others.

    PYTHON benchmarks/peer_worker.py '{"contender": "official", "path": "...", ...}'

It prints one JSON line when it is ready. Then it answers every line `go` on stdin by the seconds of
a batch from labels to tokens, and `end` by the peak memory in MiB. The official code is a package
called maskgit as well, so it cannot share a process with ours; and the interpreter may be another.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
import types
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

Sizes = dict[str, Any]
# One batch; parameters; operations of one forward of the batch as a library counts them; versions.
Ready = tuple[Callable[[], object], int, float, dict[str, str]]

SHORT = 1.0  # seconds


def package(name: str, checkout: str) -> None:
    """Make `import name` find the package of the checkout, without running its __init__.

    The official package is a maskgit as well and comes before ours; the __init__ of open-muse
    imports text encoders and tokenizers, none of which is needed.
    """
    module: Any = types.ModuleType(name)
    module.__path__ = [str(Path(checkout) / name)]
    module.__version__ = ""
    sys.modules[name] = module


def official(sizes: Sizes) -> Ready:
    """google-research/maskgit: its flax network and decode loop, jitted as one program.

    As ImageNet_class_conditional_generator.generate_samples puts them together: logits of the whole
    vocabulary for every position, cut to the codes. bfloat16: parameters in that type, in which
    flax then computes.
    """
    package("maskgit", sizes["path"])
    import flax
    import jax
    import jax.numpy as jnp

    if not hasattr(jnp, "DeviceArray"):  # the name it knew, gone from JAX since
        jnp.DeviceArray = jnp.ndarray  # type: ignore[attr-defined]
    from maskgit.libml import parallel_decode
    from maskgit.nets import maskgit_transformer

    codes, length = sizes["num_codes"], 1 + sizes["num_tokens"]
    model = maskgit_transformer.Transformer(
        vocab_size=codes + sizes["num_classes"] + 1,
        hidden_size=sizes["width"],
        num_hidden_layers=sizes["layers"],
        num_attention_heads=sizes["heads"],
        intermediate_size=sizes["mlp"],
        max_position_embeddings=length,
    )
    labels = jnp.asarray(sizes["labels"], jnp.int32)[:, None] + codes
    tokens = jnp.concatenate((labels, jnp.full((len(labels), length - 1), -1, jnp.int32)), axis=1)
    shapes = jax.eval_shape(model.init, jax.random.PRNGKey(0), tokens[:1])
    dtype = jnp.dtype(sizes["precision"])
    leaves, tree = jax.tree_util.tree_flatten(shapes)
    keys = jax.random.split(jax.random.PRNGKey(0), len(leaves))
    variables = jax.tree_util.tree_unflatten(
        tree,
        [
            0.02 * jax.random.normal(key, leaf.shape, dtype) if leaf.ndim > 1 else _affine(leaf)
            for key, leaf in zip(keys, leaves, strict=True)
        ],
    )
    variables = jax.tree_util.tree_map(lambda x: x.astype(dtype), variables)

    @jax.jit
    def decode(variables: Any, tokens: Any, key: Any) -> Any:
        def logits(sequence: Any) -> Any:
            return model.apply(variables, sequence, deterministic=True)[..., :codes]

        return parallel_decode.decode(
            tokens,
            key,
            logits,
            mask_token_id=-1,
            num_iter=sizes["steps"],
            choice_temperature=4.5,
        )[:, -1, 1:]

    forward = jax.jit(lambda variables, tokens: model.apply(variables, tokens, deterministic=True))
    analysis: Any = forward.lower(variables, tokens).cost_analysis()
    flops = (analysis[0] if isinstance(analysis, list) else analysis)["flops"]
    count = sum(int(leaf.size) for leaf in leaves)
    versions = {"jax": jax.__version__, "flax": flax.__version__}
    key = jax.random.PRNGKey(1)
    return lambda: decode(variables, tokens, key).block_until_ready(), count, flops, versions


def _affine(leaf: Any) -> Any:
    """Ones: a scale of 1, and a bias whose value does not matter here."""
    import jax.numpy as jnp

    return jnp.ones(leaf.shape, leaf.dtype)


def open_muse(sizes: Sizes) -> Ready:
    """huggingface/open-muse: MaskGitTransformer and its `generate2`.

    Pre-norm, without biases, a gated perceptron of three matrices and a head of its own; two thirds
    of the perceptron's width make its products as many as ours. Its mask is the last of the
    vocabulary, too.
    """
    package("muse", sizes["path"])
    import torch
    from muse.modeling_transformer import MaskGitTransformer
    from torch.utils.flop_counter import FlopCounterMode

    model = MaskGitTransformer(
        vocab_size=sizes["num_codes"] + sizes["num_classes"] + 1,
        hidden_size=sizes["width"],
        num_hidden_layers=sizes["layers"],
        num_attention_heads=sizes["heads"],
        intermediate_size=sizes["mlp"] * 2 // 3,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        max_position_embeddings=1 + sizes["num_tokens"],
        use_normformer=False,
        codebook_size=sizes["num_codes"],
        num_vq_tokens=sizes["num_tokens"],
        num_classes=sizes["num_classes"],
    )
    model = model.eval().to(getattr(torch, sizes["precision"]))
    labels = torch.tensor(sizes["labels"])

    @torch.inference_mode()
    def batch() -> object:
        # It adds to the labels in place.
        return model.generate2(class_ids=labels.clone(), timesteps=sizes["steps"], temperature=4.5)

    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        model(torch.zeros(len(labels), 1 + sizes["num_tokens"], dtype=torch.int64))
    count = sum(value.numel() for value in model.parameters())
    return batch, count, float(counter.get_total_flops()), {"torch": torch.__version__}


def ours(sizes: Sizes) -> Ready:
    """maskgit.decoding or maskgit.jax of this repository."""
    import torch

    from benchmarks import sampling, work
    from maskgit.model.transformer import Transformer
    from maskgit.presets import load_preset

    backend = "jax" if sizes["contender"] == "ours-jax" else "torch"
    case = sampling.Case(sizes["size"], sizes["steps"], len(sizes["labels"]), sizes["precision"])
    run, _ = sampling.prepare(replace(case, backend=backend, classes=sizes["classes"]))
    with torch.device("meta"):
        model = Transformer(load_preset(sizes["size"]).transformer_config)
    count = sum(value.numel() for value in model.parameters())
    return run, count, work.full_flops(model.config, case.images, 1), {"torch": torch.__version__}


CONTENDERS = {"official": official, "open-muse": open_muse, "ours": ours, "ours-jax": ours}


def peak_mib() -> float:
    """The most memory this process has held so far, as in benchmarks/runner.py.

    The interpreter of a peer need not have our packages, so that it cannot be imported.
    """
    status = Path("/proc/self/status")
    if status.exists():
        high = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(high.split()[1]) / 2**10
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (2**20 if sys.platform == "darwin" else 2**10)


def turn(batch: Callable[[], object]) -> float:
    """Seconds of one batch; of a short one the median of a few, after one that does not count, as
    the others have just used the caches."""
    found = [_seconds(batch)]
    if found[0] > SHORT:
        return found[0]
    while sum(found) < 2 * SHORT or len(found) < 4:
        found.append(_seconds(batch))
    return statistics.median(found[1:])


def _seconds(batch: Callable[[], object]) -> float:
    start = time.perf_counter()
    batch()
    return time.perf_counter() - start


def main() -> None:
    """Build the contender, then answer stdin."""
    sizes = json.loads(sys.argv[1])
    answers, sys.stdout = sys.stdout, sys.stderr  # what a peer prints is not an answer
    batch, count, flops, versions = CONTENDERS[sizes["contender"]](sizes)
    about = {"parameters": count, "flops": flops, "versions": versions}
    print(json.dumps(about), file=answers, flush=True)
    for line in sys.stdin:
        if line.strip() == "end":
            break
        print(turn(batch), file=answers, flush=True)
    print(round(peak_mib(), 1), file=answers, flush=True)


if __name__ == "__main__":
    main()
