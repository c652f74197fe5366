"""What a piece of code would launch on a GPU, and where it would wait for it, counted without one.

Every operation that reaches torch's dispatcher counts as a launch, unless it is a view, which only
describes memory anew. An operation can be several kernels (a sort) and a fused attention is one, so
the counts compare two pieces of code rather than give the kernels of either.

`pretended_gpu` has tensors that say they are on a GPU and hold no numbers. They refuse what would
need a number on the processor, and operations on tensors of two devices.
"""

import contextlib

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

# Operations whose result, or its shape, must be known to the processor before it can go on.
WAITS = {
    "_local_scalar_dense",
    "equal",
    "is_nonzero",
    "item",
    "masked_select",
    "nonzero",
    "_unique",
    "_unique2",
    "unique_consecutive",
    "unique_dim",
}
VIEWS_IN_EFFECT = {"_unsafe_view", "_reshape_alias"}


class Launches(TorchDispatchMode):
    """Inside of it: `names` of the launches, and `waits`, where a processor would wait."""

    def __init__(self):
        super().__init__()
        self.names, self.waits = [], []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name.partition("::")[2]
        if func.namespace != "prim" and not self._is_view(func, name):
            self.names.append(name)
        if name in WAITS or self._selects(name, args) or self._crosses(name, args, kwargs or {}):
            self.waits.append(name)
        return func(*args, **(kwargs or {}))

    def __len__(self):
        return len(self.names)

    @staticmethod
    def _is_view(func, name):
        aliases = [result.alias_info for result in func._schema.returns]
        described = aliases and all(alias and not alias.is_write for alias in aliases)
        return bool(described) or name in VIEWS_IN_EFFECT

    @staticmethod
    def _selects(name, args):
        """Whether a mask is an index: how many elements it takes is known on the device only."""
        indices = args[1] if name.startswith(("index", "_index_put")) and len(args) > 1 else ()
        indices = indices if isinstance(indices, list | tuple) else [indices]
        return any(isinstance(i, torch.Tensor) and i.dtype == torch.bool for i in indices)

    @staticmethod
    def _crosses(name, args, kwargs):
        """Whether numbers go from one device to another."""
        if name == "copy_":
            return args[0].device != args[1].device
        device = kwargs.get("device")
        return name == "_to_copy" and device is not None and device != args[0].device


@contextlib.contextmanager
def pretended_gpu(build):
    """The network of `build()` with parameters on a GPU that is not there."""
    with FakeTensorMode(), torch.no_grad():
        with torch.device("meta"):
            model = build().eval()
        for module in model.modules():
            for name, value in module._parameters.items():
                fake = torch.empty(value.shape, dtype=value.dtype, device="cuda")
                module._parameters[name] = torch.nn.Parameter(fake, requires_grad=False)
        yield model
