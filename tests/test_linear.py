"""The oneDNN products against torch's own, forward and backward."""

import pytest
import torch
import torch.nn.functional as F

import maskgit.linear
from maskgit.linear import linear, linear_gelu


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
    if request.param and not maskgit.linear._ONEDNN:
        pytest.skip("this build of torch has no oneDNN product")
    monkeypatch.setattr(maskgit.linear, "_ONEDNN", request.param)


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


def test_the_sigmoid_form_of_gelu_over_a_wide_range():
    x = torch.linspace(-30, 30, 6001).requires_grad_()
    expected = F.gelu(x, approximate="tanh")
    actual = maskgit.linear._Gelu.apply(x)
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


def test_a_build_without_onednn_is_noticed(monkeypatch):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert not maskgit.linear._onednn_is_there()


def test_a_torch_without_the_operator_is_noticed(monkeypatch):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.setattr(torch.ops, "mkldnn", object())
    assert not maskgit.linear._onednn_is_there()
