"""Presets as files: what a base gives, what is refused in one line, and what stands in a key."""

import json
import subprocess
import sys

import pytest

from maskgit.common.errors import UsageError
from maskgit.presets import NAMES, load_preset, preset_toml

OWN = """
base = "embedded"
[data]
path = "pictures"
num_classes = 3
image_size = 64
class_names = ["a b", "it's \\"c\\"", "\U0001f600"]
[tokenizer]
channels = 3
multipliers = [1, 1, 2, 2]
"""


@pytest.fixture
def write(tmp_path):
    def call(text, name="own.toml"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return call


def test_a_file_says_what_differs_from_its_base(write, tmp_path):
    own, base = load_preset(write(OWN, "shapes.toml")), load_preset("embedded")
    assert (own.name, own.path, own.grid) == ("shapes", tmp_path / "pictures", (8, 8))
    assert own.class_names[2] == "\U0001f600"
    assert own.tokenizer.filters == base.tokenizer.filters
    assert own.transformer_training == base.transformer_training
    # What is about Fashion-MNIST and its networks does not hold for other images.
    assert (own.data, own.features, own.reference, own.ships) == ("images", "", "", False)
    assert (own.num_samples, own.table_samples) == (100, 2000)


def test_a_file_that_only_measures_otherwise_keeps_networks_and_data(write):
    own = load_preset(write('base = "embedded"\n[evaluation]\nnum_samples = 250\n'))
    base = load_preset("embedded")
    assert own.num_samples == 250
    assert (own.ships, own.data, own.reference) == (True, base.data, base.reference)
    trained = load_preset(write('base = "imagenet256"\n[transformer]\nheads = 8\n'))
    assert trained.official == {}  # other networks than the released ones
    assert trained.reference == "imagenet256-train"


def test_a_base_may_be_a_file_beside_it(write):
    write(OWN, "first.toml")
    second = load_preset(write('base = "first.toml"\n[data]\nflip = true\n', "second.toml"))
    assert second.flip
    assert second.num_classes == 3
    assert second.path == load_preset(write(OWN, "first.toml")).path


@pytest.mark.parametrize("name", NAMES)
def test_the_text_of_a_preset_is_the_preset(name):
    preset = load_preset(name)
    assert load_preset(preset_toml(preset)) == preset
    assert json.loads(json.dumps(preset.content())) == preset.content()


def test_the_text_of_an_own_preset_is_the_preset(write):
    preset = load_preset(write(OWN, "shapes.toml"))
    assert load_preset(preset_toml(preset)) == preset


def test_content_is_neither_name_nor_path(write):
    one = load_preset(write(OWN, "one.toml"))
    two = load_preset(write(OWN.replace('"pictures"', '"elsewhere"'), "two.toml"))
    assert one.content() == two.content()
    assert one.content() != load_preset(write(OWN + "[transformer]\nheads = 2\n")).content()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("[tokeniser]\nfilters = 8", r"tokeniser: no such key \(did you mean tokenizer\?\)"),
        ("[tokenizer]\nfilter = 8", r"tokenizer\.filter: no such key \(did you mean filters\?\)"),
        ("[tokenizer]\nfilters = '8'", r"tokenizer\.filters = '8': expected a whole number"),
        ("[tokenizer]\nfilters = 8.0", r"tokenizer\.filters = 8\.0: expected a whole number"),
        ("[tokenizer]\nfilters = true", r"tokenizer\.filters = True: expected a whole number"),
        (
            "[tokenizer]\nnum_codes = 65537",
            r"num_codes = 65537: expected at least 2, at most 65536",
        ),
        ("[tokenizer]\nmultipliers = 4", r"multipliers = 4: expected a list of whole numbers"),
        ("[tokenizer]\nnorm_groups = 5", r"tokenizer: tokenizer norm_groups must divide"),
        ("[tokenizer_training]\nbetas = [0.9]", r"betas = \[0\.9\]: expected a list of 2 numbers"),
        ("[tokenizer_training]\nbetas = [0.9, 1.0]", r"betas = .*: expected at least 0, at most 1"),
        ("[tokenizer_training]\nsteps = 0", r"tokenizer_training\.steps = 0: expected at least 1"),
        ("[tokenizer_training]\ndecay = 'cosin'", r"constant or cosine \(did you mean cosine\?\)"),
        ("[transformer]\nheads = 3", r"heads must divide the width 128, got heads=3"),
        ("[transformer_training]\nlearning_rate = nan", r"learning_rate = nan: expected at least"),
        ("[data]\nimage_size = 66", r"data\.image_size = 66: expected a multiple of 4"),
        ("[data]\nnum_classes = 11", r"data\.class_names: 10 names of 11 classes"),
        ("[evaluation]\nblock = 25", r"evaluation\.block = 25: expected a multiple of the 10"),
        ("[data]\nconditional = false", r"data\.num_classes = 10: expected 1"),
        ("[data]\nconditional = 1", r"data\.conditional = 1: expected true or false"),
        ("[data]\ncrop = 'middle'", r"data\.crop = 'middle': expected none or random-resized or"),
        ("[data]\nkind = 'imagefolder'", r"data\.num_classes is missing"),
        ("[evaluation]\nschedules = []", r"evaluation\.schedules and table_steps: expected"),
        ("[evaluation]\nschedules = ['cosin']", r"evaluation\.schedules: .*cosin"),
        ("data = 3", r"data = 3: expected a table \[data\]"),
        ("name = '../up'", r"name = '\.\./up': expected letters"),
        ("base = 3", r"base = 3: expected a text"),
        ("base = 'own.toml'", r"base = .* leads back to this file"),
        ("base = 'none.toml'", r"base: .*none\.toml: No such file"),
        ("base = 'embeded'", r"base: .*expected one of embedded"),
        ("[data\n", r"not TOML \("),
    ],
)
def test_what_is_wrong_is_one_line_with_the_key(write, change, says):
    path = write(change if change.startswith("base") else f'base = "embedded"\n{change}\n')
    with pytest.raises(UsageError, match=says) as error:
        load_preset(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_a_file_that_cannot_be_read_is_one_line(write, tmp_path):
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe")
    (tmp_path / "folder.toml").mkdir()
    (tmp_path / "large.toml").write_bytes(b"#" * (2**20 + 1))
    for name in ("bytes.toml", "folder.toml", "large.toml", "none.toml"):
        with pytest.raises(UsageError, match=f"--preset .*{name}: "):
            load_preset(tmp_path / name)
    with pytest.raises(UsageError, match=r"FILE\.toml \(did you mean embedded\?\)"):
        load_preset("embeded")


def test_a_command_ends_with_one_line_and_code_2(write):
    path = write('base = "embedded"\n[tokenizer]\nfilter = 8\n', "wrong name's.toml")
    words = [sys.executable, "experiments/ablate_schedule.py", "--preset", str(path)]
    ended = subprocess.run(words, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (2, "", 1)
    assert "tokenizer.filter: no such key" in ended.stderr


def test_workers_and_slurm_jobs_get_the_content(write, tmp_path):
    """The file may be another one, or gone, when they start."""
    import pickle

    from experiments.engine import job, remote
    from experiments.studies.ablate_schedule.experiment import Options
    from experiments.studies.registry import get_experiment

    path = write('base = "embedded"\n[evaluation]\nnum_samples = 30\n')
    options = Options(preset=str(path), T="2", schedules="cosine", metrics="is", out=tmp_path)
    build = get_experiment("ablate_schedule").build(options)
    request = json.loads(json.dumps(remote.request_of("ablate_schedule", options)))
    path.unlink()
    assert job.work(request) == job.work_of(build.tasks)
    assert pickle.loads(pickle.dumps(build.computer)).preset.num_samples == 30


@pytest.mark.parametrize(
    ("base", "classes", "block"),
    [("embedded", 37, 111), ("places2", 365, 365), ("embedded", 1, 100)],
)
def test_a_block_holds_every_class_equally_often_where_nobody_says_its_size(
    write, base, classes, block
):
    data = f"num_classes = {classes}\nclass_names = []\nconditional = true"
    assert load_preset(write(f'base = "{base}"\n[data]\n{data}\n')).block == block
