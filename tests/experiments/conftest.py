"""The script run in this process with networks of the embedded interfaces, a few numbers wide."""

import sys

import pytest

from experiments import ablate_schedule
from tests.paths import GOLDEN
from tests.presets import register


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """A folder of small networks for two schedules, as --weights takes it."""
    import torch

    from maskgit.checkpoints import save_model
    from maskgit.model.config import TokenizerConfig, TransformerConfig
    from maskgit.model.tokenizer import Tokenizer
    from maskgit.model.transformer import Transformer

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("weights")
    sizes = TokenizerConfig(
        channels=1, filters=4, multipliers=(1, 1, 1), blocks=1, num_codes=512, code_dim=4,
        norm_groups=2,
    )  # fmt: skip
    save_model(folder / "tokenizer", Tokenizer(sizes))
    for schedule in ("cosine", "linear"):
        sizes = TransformerConfig(
            num_codes=512, num_classes=10, num_tokens=64, width=16, layers=1, heads=2, mlp=16,
            dropout=0.0,
        )  # fmt: skip
        save_model(folder / f"transformer-{schedule}", Transformer(sizes), card={"name": schedule})
    return folder


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Twenty held-out images instead of two thousand; one thread."""
    import torch

    monkeypatch.setattr("experiments.sampler.held_out.NLL_IMAGES", 20)
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def run(monkeypatch, capsys, weights, tmp_path):
    """run(*flags) -> (exit code, stdout, stderr); weights, --out and --workers 0 are added."""

    def call(*flags, out=tmp_path / "run", bare=False):
        words = [str(flag) for flag in flags]
        if not bare:
            for flag, value in (("--weights", weights), ("--out", out), ("--workers", 0)):
                if flag not in words:
                    words += [flag, str(value)]
        monkeypatch.setattr(sys, "argv", ["ablate_schedule.py", *words])
        with pytest.raises(SystemExit) as ended:
            ablate_schedule.main()
        said = capsys.readouterr()
        return ended.value.code, said.out, said.err

    return call


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    """Registers the preset `tiny`; a folder with the golden official files under official names."""
    from dataclasses import replace

    from maskgit import presets
    from maskgit.model.config import TokenizerConfig

    preset = replace(
        presets.load_preset("imagenet256"),
        name="tiny",
        num_classes=10,
        image_size=32,
        tokenizer=TokenizerConfig(filters=32, blocks=1, num_codes=32, code_dim=16),
        reference="tiny-train",
        num_samples=4,
        class_names=tuple(f"class {i}" for i in range(10)),
        official={
            "tokenizer": "tokenizer_tiny_checkpoint",
            "transformer": "maskgit_tiny_checkpoint",
        },
    )
    register(monkeypatch, tmp_path, preset)
    golden = GOLDEN
    folder = tmp_path / "official"
    folder.mkdir()
    for name in preset.official.values():
        parts = sorted(golden.glob(f"{name}*"))
        (folder / name).write_bytes(b"".join(part.read_bytes() for part in parts))
    return folder
