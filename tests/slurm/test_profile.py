"""Profiles: what they hold, where they are found, one line for every mistake."""

import math

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
    ("text", "seconds"),
    [
        ("90", 90 * 60),
        ("30:00", 30 * 60),  # minutes and seconds, and no hours
        ("00:30", 30),
        ("01:00:05", 3605),
        ("08:00:00", 8 * 3600),
        ("1-12", 36 * 3600),
        ("1-02:30", 26 * 3600 + 30 * 60),
        ("2-00:00:00", 2 * 24 * 3600),
        ("UNLIMITED", 0),
        ("infinite", 0),
        ("0", 0),
    ],
)
def test_a_time_means_what_it_means_to_sbatch(text, seconds):
    assert parse_time(text) == seconds
    profile = load_profile("cpu", [f"time={text}"])
    assert profile.time == text
    assert profile.minutes == math.ceil(seconds / 60)


def test_a_time_and_numbers_in_a_file_may_do_without_quotes(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("time = 08:00:00\naccount = 12345\n")
    mine = load_profile(str(path), ["mem=16", "qos='high'"])
    assert (mine.minutes, mine.account, mine.mem, mine.qos) == (480, "12345", "16", "high")


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
        ("cpu", ["time=1:2:3:4"], "time 1:2:3:4: expected minutes"),
        ("cpu", ["time=00:00"], "time 00:00: expected minutes"),
        ("cpu", ["mem=true"], "mem is True; expected a text"),
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
