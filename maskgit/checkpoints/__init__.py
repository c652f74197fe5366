"""Models on disk: our own folders, official flax files, and where they are found.

The public functions are imported at their first use, so that command lines that load no network
answer without importing torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from maskgit.checkpoints.contents import read_card as read_card
    from maskgit.checkpoints.contents import weights_sha256 as weights_sha256
    from maskgit.checkpoints.folder import load_autoregressive as load_autoregressive
    from maskgit.checkpoints.folder import load_model as load_model
    from maskgit.checkpoints.folder import load_tokenizer as load_tokenizer
    from maskgit.checkpoints.folder import load_transformer as load_transformer
    from maskgit.checkpoints.folder import model_kind as model_kind
    from maskgit.checkpoints.folder import save_model as save_model
    from maskgit.checkpoints.paths import zoo_path as zoo_path


_MODULES = {
    **dict.fromkeys(("read_card", "weights_sha256"), "contents"),
    **dict.fromkeys(("load_autoregressive", "load_model", "load_tokenizer"), "folder"),
    **dict.fromkeys(("load_transformer", "model_kind", "save_model"), "folder"),
    "zoo_path": "paths",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"maskgit.checkpoints.{_MODULES[name]}"), name)
