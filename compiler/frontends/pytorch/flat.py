"""A module with a flat interface: tensors in, a tuple of tensors out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from infc.diagnostics import Diagnostic, Severity, fail
from infc.frontends.pytorch.calls import Call
from infc.frontends.pytorch.structure import Leaf, is_plain, is_tensor, leaves, unique

INNER = "module"
"""What the user's module is called in the flat one; the names of its weights begin with it."""


@dataclass(slots=True)
class Outputs:
    """What the flat module gives back: the names of the tensors, and of what was left out."""

    names: list[str] = field(default_factory=list)
    constants: list[str] = field(default_factory=list)

    def note(self) -> tuple[Diagnostic, ...]:
        """One where something was left out."""
        if not self.constants:
            return ()
        shown = ", ".join(f"`{name}`" for name in self.constants)
        return (
            Diagnostic(
                "E108",
                f"{shown}: no tensor, and left out of the outputs",
                severity=Severity.NOTE,
            ),
        )


def flatten(module: Any, call: Call) -> tuple[Any, Outputs]:
    """`module` called with the arguments of `call`, as a module of flat tensors.

    The outputs are known when it has run once.
    """
    import torch

    outputs = Outputs()

    class Flat(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.module = module

        def forward(self, *tensors: Any) -> tuple[Any, ...]:
            args, kwargs = call.rebuilt(tensors)
            results = self.module(*args, **kwargs)
            found = tensors_of(results, set(call.names), outputs)
            return tuple(tensor for _, tensor in found)

    flat = Flat()
    flat.training = False  # the module itself has been settled, and a program refuses `eval`
    return flat, outputs


def tensors_of(results: Any, inputs: set[str], outputs: Outputs) -> list[Leaf]:
    """The tensors in what `forward` returned, with their names, which `outputs` then has.

    One tensor is `output`, those of a tuple `output_0` and so on; keys and fields are names.

    Raises:
        InfcError: E111 where there is something else in it, or no tensor at all.
    """
    alone = isinstance(results, list | tuple) and len(results) == 1
    whole = results[0] if alone and not hasattr(results, "_fields") else results
    bare = is_tensor(whole) or (isinstance(whole, list | tuple) and not hasattr(whole, "_fields"))
    found = list(leaves(whole, "output" if bare else "", objects=True))
    for name, value in found:
        if not is_tensor(value) and not is_plain(value):
            raise fail(
                "E111",
                f"`forward` returns {type(value).__name__}"
                + (f" as `{name}`" if name else "")
                + ", which is no tensor and holds none that infc can find",
                help="return tensors, or tuples, dicts and dataclasses of them",
            )
    tensors = [leaf for leaf in found if is_tensor(leaf[1])]
    if not tensors:
        raise fail("E111", f"`forward` returns {_spell(results)}, and no tensor")
    outputs.constants = [n for n, v in found if v is not None and not is_tensor(v)]
    names = [name or "output" for name, _ in tensors]
    outputs.names = unique([f"{name}_out" if name in inputs else name for name in names], inputs)
    return list(zip(outputs.names, (tensor for _, tensor in tensors), strict=True))


def _spell(value: Any) -> str:
    return "None" if value is None else type(value).__name__


def same(one: Sequence[Any], other: Sequence[Any]) -> bool:
    """Whether two answers are equal to the rounding of sums in another order."""
    import torch

    return len(one) == len(other) and all(
        a.shape == b.shape
        and a.dtype == b.dtype
        and torch.allclose(a, b, rtol=1e-4, atol=1e-6, equal_nan=True)
        for a, b in zip(one, other, strict=True)
    )
