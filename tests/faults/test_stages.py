"""Staged tokens, features and likelihoods: only what was made for a key is served for that key."""

import json
import shutil

import numpy as np
import pytest

from experiments.engine.store.blocks import Blocks
from experiments.engine.store.stages import Stages
from tests.faults.abuse import damaged, fault, strange_json

FIRST, SECOND = "ab" * 32, "cd" * 32


def tokens(seed):
    return np.random.default_rng(seed).integers(0, 512, (4, 16)).astype(np.uint16)


def features(seed):
    rng = np.random.default_rng(seed)
    return {
        "features": rng.normal(size=(4, 8)).astype(np.float32),
        "logits": rng.normal(size=(4, 3)),
    }


def likelihood(seed):
    return {"value": 2.0 + seed, "images": 4, "masked_tokens": 32}


class Kind:
    """One kind of stage: where its file lies and how it is made, asked for and compared."""

    def __init__(self, name, end, make, ask):
        self.name, self.end, self.make, self.ask = name, end, make, ask

    def path(self, folder, key):
        return folder / "stages" / self.name / f"{key}{self.end}"

    def get(self, folder, key, seed):
        """What is served for a key whose content is that of `seed`."""
        return self.ask(Stages(folder), key, lambda: self.make(seed))


def block(stages, kind, key, make):
    return Blocks(stages, kind, key, 4, 4, lambda ids: make()).read()


def same(first, second):
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[k], second[k]) for k in first)
    return bool(np.array_equal(first, second))


KINDS = {
    "tokens": Kind(
        "tokens", "/00000.npy", tokens, lambda s, key, make: block(s, "tokens", key, make)
    ),
    "features": Kind(
        "features", "/00000.npz", features, lambda s, key, make: block(s, "features", key, make)
    ),
    "held-out": Kind("tokens", ".npy", tokens, lambda s, key, make: s.kept("tokens", key, make, 4)),
    "likelihood": Kind(
        "likelihood", ".json", likelihood, lambda s, key, make: s.kept("likelihood", key, make)
    ),
}


@pytest.fixture(params=KINDS)
def kind(request):
    return KINDS[request.param]


def test_what_was_made_for_another_key_is_made_again(tmp_path, kind):
    kind.get(tmp_path, FIRST, 1)
    kind.get(tmp_path, SECOND, 2)
    shutil.copy(kind.path(tmp_path, SECOND), kind.path(tmp_path, FIRST))
    assert same(kind.get(tmp_path, FIRST, 1), kind.make(1))
    # And it heals: the file is now the right one.
    assert same(kind.get(tmp_path, FIRST, 3), kind.make(1))


def test_zeros_of_the_right_shape_are_made_again(tmp_path):
    tokens_, features_ = KINDS["tokens"], KINDS["features"]
    tokens_.get(tmp_path, FIRST, 1)
    features_.get(tmp_path, FIRST, 1)
    np.save(tokens_.path(tmp_path, FIRST), np.zeros((4, 16), np.uint16))
    zeros = {name: np.zeros_like(array) for name, array in features(1).items()}
    np.savez(features_.path(tmp_path, FIRST), **zeros)
    assert same(tokens_.get(tmp_path, FIRST, 1), tokens(1))
    assert same(features_.get(tmp_path, FIRST, 1), features(1))


def test_a_flipped_low_bit_of_a_token_is_found(tmp_path):
    kind = KINDS["tokens"]
    kind.get(tmp_path, FIRST, 1)
    path = kind.path(tmp_path, FIRST)
    held = bytearray(path.read_bytes())
    held[-2] ^= 1
    path.write_bytes(held)
    assert same(kind.get(tmp_path, FIRST, 1), tokens(1))


def test_tokens_of_another_width_are_made_again(tmp_path):
    kind = KINDS["tokens"]
    kind.get(tmp_path, FIRST, 1)
    np.save(kind.path(tmp_path, FIRST), tokens(1)[:, :5])
    assert kind.get(tmp_path, FIRST, 1).shape == (4, 16)


def test_a_block_of_the_same_pool_is_not_taken_for_another(tmp_path):
    made = tokens(1)
    blocks = Blocks(Stages(tmp_path), "tokens", FIRST, 4, 2, lambda ids: made[ids])
    blocks.read()
    first, second = sorted((tmp_path / "stages/tokens" / FIRST).glob("*.npy"))
    shutil.copy(second, first)
    assert same(blocks.read(), made)


@pytest.mark.parametrize("name", ["tokens", "features", "held-out"])
def test_any_damage_of_arrays_is_made_again(tmp_path, name):
    kind = KINDS[name]
    kind.get(tmp_path, FIRST, 1)
    path = kind.path(tmp_path, FIRST)
    whole, wrong = path.read_bytes(), {}
    for case, content in damaged(whole, 120):
        path.write_bytes(content)
        served = []
        what = fault(lambda kept=served: kept.append(kind.get(tmp_path, FIRST, 1)), ())
        if what or not same(served[0], kind.make(1)):
            wrong[case] = what or "served"
    assert not wrong


def test_any_damage_of_a_likelihood_is_made_again(tmp_path):
    kind = KINDS["likelihood"]
    kind.get(tmp_path, FIRST, 1)
    path = kind.path(tmp_path, FIRST)
    whole, wrong = path.read_bytes(), {}
    cases = [*damaged(whole, 60), *strange_json(json.loads(whole), 60)]
    for case, content in cases:
        path.write_bytes(content)
        served = []
        what = fault(lambda kept=served: kept.append(kind.get(tmp_path, FIRST, 1)), ())
        if what or served[0] != likelihood(1):
            wrong[case] = what or "served"
    assert not wrong


def test_a_stage_file_that_is_a_folder_is_made_again_or_said(tmp_path, kind):
    path = kind.path(tmp_path, FIRST)
    path.mkdir(parents=True)
    assert fault(lambda: kind.get(tmp_path, FIRST, 1), seconds=3) == ""
