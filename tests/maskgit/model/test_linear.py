"""The oneDNN products against torch's own, forward and backward."""

import pytest
import torch
import torch.nn.functional as F

import maskgit.model.linear
from maskgit.model.linear import linear, linear_gelu


def plain_gelu(x, weight, bias):
    return F.gelu(F.linear(x, weight, bias), approximate="tanh")


def inputs(inner, outer, dtype=torch.float32):
    generator = torch.Generator().manual_seed(inner)
    x = torch.randn(3, 7, inner, generator=generator, dtype=dtype)
    weight = torch.randn(outer, inner, generator=generator, dtype=dtype)
    bias = torch.randn(outer, generator=generator, dtype=dtype)
    return [tensor.requires_grad_() for tensor in (x, weight, bias)]


@pytest.fixture(params=[True, False], ids=["onednn", "plain"])
def either(request, monkeypatch):
    """With oneDNN, where this build of torch has it, and without."""
    if request.param and not maskgit.model.linear._ONEDNN:
        pytest.skip("this build of torch has no oneDNN product")
    monkeypatch.setattr(maskgit.model.linear, "_ONEDNN", request.param)


@pytest.mark.usefixtures("either")
@pytest.mark.parametrize(("inner", "outer"), [(8, 24), (24, 8)])
@pytest.mark.parametrize(("ours", "plain"), [(linear, F.linear), (linear_gelu, plain_gelu)])
def test_values_and_gradients(ours, plain, inner, outer):
    arguments = inputs(inner, outer)
    expected = plain(*arguments)
    torch.testing.assert_close(ours(*arguments), expected, rtol=1e-5, atol=1e-5)
    with torch.inference_mode():
        torch.testing.assert_close(ours(*arguments), expected, rtol=1e-5, atol=1e-5)
    upstream = torch.randn(expected.shape, generator=torch.Generator().manual_seed(5))
    ours_grads = torch.autograd.grad(ours(*arguments), arguments, upstream)
    plain_grads = torch.autograd.grad(expected, arguments, upstream)
    for one, other in zip(ours_grads, plain_grads, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("either")
def test_a_sum_in_the_product_has_the_bits_of_a_sum_after_it():
    x, weight, bias = inputs(40, 24)
    plus = torch.randn(3, 7, 24, generator=torch.Generator().manual_seed(1), requires_grad=True)
    with torch.no_grad():
        assert torch.equal(linear(x, weight, bias, plus), plus + linear(x, weight, bias))
        many_x, many_weight, many_bias = many(100)
        plain = many_x + linear(many_x, many_weight, many_bias)
        with maskgit.model.linear.packed_weights():
            assert torch.equal(linear(many_x, many_weight, many_bias, many_x), plain)
    summed, separate = linear(x, weight, bias, plus), plus + linear(x, weight, bias)
    leaves = (x, weight, bias, plus)
    grads = [torch.autograd.grad(value.square().sum(), leaves) for value in (summed, separate)]
    assert all(torch.equal(one, other) for one, other in zip(*grads, strict=True))


def test_the_sigmoid_form_of_gelu_over_a_wide_range():
    x = torch.linspace(-30, 30, 6001).requires_grad_()
    expected = F.gelu(x, approximate="tanh")
    actual = maskgit.model.linear._Gelu.apply(x)
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-6)
    (slope,) = torch.autograd.grad(actual.sum(), x)
    (plain,) = torch.autograd.grad(expected.sum(), x)
    torch.testing.assert_close(slope, plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["float64", "autocast", "no rows"])
def test_other_kinds_go_the_plain_way(kind):
    x, weight, bias = inputs(8, 16, torch.float64 if kind == "float64" else torch.float32)
    if kind == "no rows":
        x = x[:0]
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=kind == "autocast"):
        for ours, plain in ((linear, F.linear), (linear_gelu, plain_gelu)):
            actual, expected = ours(x, weight, bias), plain(x, weight, bias)
            assert actual.dtype == expected.dtype
            assert actual.shape == expected.shape
            assert torch.equal(actual, expected)


@pytest.mark.skipif(not maskgit.model.linear._BFLOAT16, reason="no bfloat16 products")
@pytest.mark.usefixtures("bfloat16")
@pytest.mark.parametrize(("ours", "plain"), [(linear, F.linear), (linear_gelu, plain_gelu)])
def test_bfloat16_without_gradients_rounds_once(ours, plain):
    x, weight, bias = (tensor.detach().bfloat16() for tensor in inputs(64, 96))
    exact = plain(x.double(), weight.double(), bias.double())
    with torch.no_grad():
        actual = ours(x, weight, bias)
    assert actual.dtype == torch.bfloat16
    torch.testing.assert_close(actual.double(), exact, rtol=2**-8, atol=1e-3)
    x.requires_grad_()
    assert ours(x, weight, bias).requires_grad  # the plain way


def test_a_build_without_onednn_is_noticed(monkeypatch):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert not maskgit.model.linear._onednn_is_there()


def test_a_torch_without_the_operator_is_noticed(monkeypatch):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.setattr(torch.ops, "mkldnn", object())
    assert not maskgit.model.linear._onednn_is_there()


def many(rows):
    """Enough rows for packing, a parameter and a bias."""
    generator = torch.Generator().manual_seed(rows)
    x, weight = (torch.randn(n, 512, generator=generator) for n in (rows, 512))
    return x, torch.nn.Parameter(weight), torch.randn(512, generator=generator)


@pytest.mark.parametrize("rows", [64, 80, 257, 1028])
def test_packed_weights_give_the_same_bits(rows):
    x, weight, bias = many(rows)
    with torch.inference_mode():
        plain = linear(x, weight, bias), linear_gelu(x, weight, bias)
        with maskgit.model.linear.packed_weights():
            for _ in range(2):
                packed = linear(x, weight, bias), linear_gelu(x, weight, bias)
                assert all(torch.equal(a, b) for a, b in zip(plain, packed, strict=True))
            # The last layer has other numbers of rows than those that it was packed for.
            assert torch.equal(linear(x[:64], weight, bias), plain[0][:64])
            assert len(maskgit.model.linear._packs.get()) == maskgit.model.linear._ONEDNN


def test_a_weight_changed_between_two_blocks_is_packed_anew():
    x, weight, bias = many(128)
    with torch.no_grad():
        for _ in range(2):
            with maskgit.model.linear.packed_weights():
                expected = F.linear(x, weight, bias)
                torch.testing.assert_close(linear(x, weight, bias), expected, rtol=1e-3, atol=1e-3)
            weight.mul_(-2.0)


def test_gradients_never_see_a_packed_weight():
    x, weight, bias = many(128)
    with maskgit.model.linear.packed_weights():
        linear(x, weight, bias).sum().backward()
        assert weight.grad is not None
        assert not maskgit.model.linear._packs.get()
    assert maskgit.model.linear._packs.get() is None
