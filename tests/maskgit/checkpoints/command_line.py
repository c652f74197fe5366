"""`python -m maskgit.checkpoints` in this process."""

import sys

import pytest

from maskgit.checkpoints import __main__ as checkpoints_cli


def command(*arguments, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["checkpoints", *map(str, arguments)])
    checkpoints_cli.main()


def failing(*arguments, monkeypatch, capsys):
    with pytest.raises(SystemExit) as caught:
        command(*arguments, monkeypatch=monkeypatch)
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    return error
