"""`python -m maskgit.checkpoints inspect|convert`; fetch is in test_checkpoints_fetch.py."""

import hashlib
import json
import re
import subprocess
import sys

import pytest
import torch

from maskgit.checkpoints import load_model, load_tokenizer, load_transformer, save_model
from maskgit.common.records import Record, write_record
from maskgit.model.causal import Autoregressive
from maskgit.model.config import TokenizerConfig, TransformerConfig
from maskgit.model.tokenizer import Tokenizer
from tests.maskgit.checkpoints.command_line import command, failing
from tests.paths import GOLDEN, names

TRANSFORMER = GOLDEN / "maskgit_other_checkpoint"
TOKENIZER = GOLDEN / "tokenizer_other_checkpoint"
CONTENT = TRANSFORMER.read_bytes()


def test_inspect_lists_every_array(monkeypatch, capsys):
    command("inspect", TRANSFORMER, "--num-codes", 20, "--json", monkeypatch=monkeypatch)
    content = json.loads(capsys.readouterr().out)
    model = load_transformer(TRANSFORMER, num_codes=20)
    assert content["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    assert (content["kind"], content["config"]["num_classes"]) == ("transformer", 7)
    leaves = {leaf["name"]: leaf for leaf in content["leaves"]}
    kernel = leaves["TransformerLayer_2/Attention_0/self_attention/out/kernel"]
    assert (kernel["shape"], kernel["parameters"]) == ([3, 16, 48], 2304)
    assert len(leaves) == len(content["leaves"]) == 57

    command("inspect", TOKENIZER, monkeypatch=monkeypatch)
    table = capsys.readouterr().out
    assert re.search(r"decoder/ResBlock_2/Conv_0/kernel\s+│ 3 x 3 x 32 x 32\s+│ float16", table)
    assert "multipliers (2, 1)" in table


def test_inspect_of_a_folder_and_of_what_does_not_fit(tmp_path, monkeypatch, capsys):
    save_model(tmp_path / "model", load_tokenizer(TOKENIZER), half=True)
    command("inspect", tmp_path / "model", monkeypatch=monkeypatch)
    assert re.search(r"quantizer.codebook\s+│ 24 x 12\s+│ F16\s+│\s+288", capsys.readouterr().out)
    with pytest.raises(SystemExit):
        command("inspect", TRANSFORMER, "--num-codes", 99, monkeypatch=monkeypatch)
    captured = capsys.readouterr()
    assert "57 arrays" in captured.out
    assert captured.err.startswith("error: num_codes 99: expected 1 to 26")
    for path in (tmp_path / "none", tmp_path):
        error = failing("inspect", path, monkeypatch=monkeypatch, capsys=capsys)
        assert "no such file, and no folder with a model.safetensors" in error


def test_inspect_verifies_the_record(tmp_path, monkeypatch, capsys):
    file = tmp_path / "file"
    file.write_bytes(CONTENT)
    write_record(file, Record(len(CONTENT), hashlib.sha256(CONTENT).hexdigest(), "there"))
    command("inspect", file, "--verify", monkeypatch=monkeypatch)
    assert re.search(r"recorded: 228394 bytes, sha256 \w{64}, there", capsys.readouterr().out)
    file.write_bytes(CONTENT[:-1] + b"\1")
    error = failing("inspect", file, "--verify", monkeypatch=monkeypatch, capsys=capsys)
    assert "its record says" in error


def test_an_autoregressive_model_has_no_official_format(tmp_path, monkeypatch, capsys):
    model = Autoregressive(TransformerConfig(4, 2, 4, width=8, layers=1, heads=2, mlp=8))
    save_model(tmp_path / "model", model)
    assert type(load_model(tmp_path / "model")) is Autoregressive
    command("inspect", tmp_path / "model", monkeypatch=monkeypatch)
    assert "autoregressive: num_codes 4" in capsys.readouterr().out
    arguments = ("convert", tmp_path / "model", tmp_path / "file", "--to", "flax")
    error = failing(*arguments, monkeypatch=monkeypatch, capsys=capsys)
    assert "an autoregressive model, which has no official format" in error
    assert names(tmp_path) == ["model"]


@pytest.mark.parametrize("source", [TRANSFORMER, TOKENIZER])
def test_convert_there_and_back(tmp_path, source, monkeypatch, capsys):
    flags = ["--num-codes", 20] if source == TRANSFORMER else []
    folder, again = tmp_path / "model", tmp_path / "again"
    command("convert", source, folder, *flags, monkeypatch=monkeypatch)
    command("convert", source, folder, *flags, monkeypatch=monkeypatch)  # a model is replaced
    command("convert", folder, again, "--to", "flax", monkeypatch=monkeypatch)
    load = load_transformer if source == TRANSFORMER else load_tokenizer
    expected = load(source).state_dict()
    for path in (folder, again):
        state = load(path).state_dict()
        assert all(torch.equal(state[name], tensor) for name, tensor in expected.items())
    if source == TRANSFORMER:
        assert again.read_bytes() == CONTENT
        assert load_transformer(folder).config.num_codes == 20
    assert names(tmp_path) == ["again", "model"]
    assert "parameters" in capsys.readouterr().out


def test_convert_replaces_nothing_but_a_model(tmp_path, monkeypatch, capsys):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "text").write_text("mine")
    (tmp_path / "file").write_text("mine")
    save_model(tmp_path / "mixed", Tokenizer(TokenizerConfig(1, 32, (1,), 1, 4, 2)))
    (tmp_path / "mixed" / "text").write_text("mine")
    for out in ("notes", "file", "mixed"):
        error = failing(
            "convert", TRANSFORMER, tmp_path / out, monkeypatch=monkeypatch, capsys=capsys
        )
        assert f"{out}: exists and holds no model" in error
    for arguments, message in [
        ((TRANSFORMER, tmp_path / "file", "--to", "flax"), "file: exists already"),
        ((TRANSFORMER, tmp_path / "new", "--to", "flax", "--half"), "--half: the official format"),
        ((tmp_path / "none", tmp_path / "new"), "none: no such file or folder"),
        ((tmp_path / "notes", tmp_path / "new"), "config.json: no such file"),
        ((TRANSFORMER, tmp_path / "file" / "new"), "cannot be written"),
    ]:
        error = failing("convert", *arguments, monkeypatch=monkeypatch, capsys=capsys)
        assert message in error
    assert (tmp_path / "notes" / "text").read_text() == (tmp_path / "file").read_text() == "mine"
    assert names(tmp_path) == ["file", "mixed", "notes"]


def test_help_does_not_wait_for_torch():
    code = "import sys, runpy; sys.argv = ['x', '--help']\n"
    code += "try: runpy.run_module('maskgit.checkpoints', run_name='__main__', alter_sys=True)\n"
    code += "except SystemExit as stop: assert not stop.code\n"
    code += "assert 'torch' not in sys.modules"  # numpy checks the schedules of presets
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "fetch" in done.stdout
