"""Profiles: what they hold, where they are found, one line for every mistake."""

import pytest

from maskgit.common.errors import UsageError
from slurm.profile import VARIABLE, load_profile, parse_time, profile_names


def test_the_profiles_that_come_along_can_be_read():
    assert {"a100", "a100x8", "cpu", "h100", "local"} <= set(profile_names())
    for name in profile_names():
        assert load_profile(name).minutes > 0
    eight = load_profile("a100x8")
    assert (eight.tasks_per_node, eight.gpus) == (8, 1)


def test_overrides_and_own_folder(tmp_path, monkeypatch):
    (tmp_path / "mine.toml").write_text(
        'partition = "gpu"\ntime = 90\nsetup = ["module load cuda"]\n[environment]\nA = 1\n'
    )
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    mine = load_profile("mine", ["time=1-02:00:00", "qos=high", "gpus=2", "setup=['x', 'y']"])
    assert (mine.partition, mine.qos, mine.gpus, mine.minutes) == ("gpu", "high", 2, 26 * 60)
    assert mine.setup == ("x", "y")
    assert mine.environment == {"A": "1"}
    assert load_profile(str(tmp_path / "mine.toml")).minutes == 90


@pytest.mark.parametrize(
    ("text", "seconds"), [("1", 60), ("00:30", 1800), ("01:00:05", 3605), ("2-00:00:00", 172800)]
)
def test_times(text, seconds):
    assert parse_time(text, "time") == seconds


@pytest.mark.parametrize(
    ("name", "overrides", "words"),
    [
        ("a1000", [], "--slurm a1000: expected one of a100"),
        ("none.toml", [], "no such file"),
        ("cpu", ["tine=3"], "did you mean time?"),
        ("cpu", ["time"], "expected KEY=VALUE"),
        ("cpu", ["time=soon"], "time soon: expected minutes"),
        ("cpu", ["gpus=-1"], "gpus is -1; expected a whole number of at least 0"),
        ("cpu", ["gpus=true"], "gpus is True"),
        ("cpu", ["mem=16"], "mem is 16; expected a text"),
        ("cpu", ["setup=x"], "a list of shell lines"),
        ("cpu", ["seconds_per_forward=0"], "a number above 0"),
    ],
)
def test_mistakes_are_one_line(name, overrides, words):
    with pytest.raises(UsageError) as error:
        load_profile(name, overrides)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_a_broken_file_is_named(tmp_path):
    (tmp_path / "bad.toml").write_text("time = \n")
    with pytest.raises(UsageError, match=r"bad\.toml is not readable as TOML"):
        load_profile(str(tmp_path / "bad.toml"))
