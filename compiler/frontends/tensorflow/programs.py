"""A model as a function of tensors, and that function run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from infc.diagnostics import Diagnostic, fail
from infc.signature import DTYPES

if TYPE_CHECKING:
    from infc.targets import Runner, Tensors


@dataclass(frozen=True, slots=True)
class Port:
    """An input: `shape` has None for a dimension that varies; `dtype` is numpy's name."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str


@dataclass(frozen=True, slots=True)
class Program:
    """`call` takes one tensor for each of `inputs` and returns one for each of `outputs`."""

    inputs: tuple[Port, ...]
    outputs: tuple[str, ...]
    call: Callable[[Sequence[Any]], Sequence[Any]]
    owner: Any = None
    """What must stay alive for `call`: variables are held weakly by functions."""
    notes: tuple[Diagnostic, ...] = ()


def port(name: str, shape: Any, dtype: Any, dims: Sequence[int | None] | None = None) -> Port:
    """The input `name` of a TensorFlow `shape` and `dtype`; `dims` are the user's.

    Raises:
        InfcError: E108 for a type that cannot cross the interface, E115 for an unknown rank.
    """
    spelled = dtype if isinstance(dtype, str) else dtype.name
    if spelled not in DTYPES:
        raise fail(
            "E108",
            f"input `{name}` is {spelled}, which cannot cross the interface",
            help="export the part of the model behind it, with numbers as inputs: tokens, not text",
        )
    if isinstance(shape, (tuple, list)):
        return Port(name, tuple(shape), spelled)
    if shape.rank is None:
        if dims is None:
            raise fail(
                "E115",
                f"the model does not say how many dimensions input `{name}` has",
                help=f"for example `--input {name}=batchx224x224x3`",
            )
        return Port(name, tuple(dims), spelled)
    return Port(name, tuple(shape.as_list()), spelled)


def unique(names: Sequence[str]) -> tuple[str, ...]:
    """The names, with a number at the end of one that was there before."""
    taken: dict[str, int] = {}
    out = []
    for name in names:
        count = taken[name] = taken.get(name, -1) + 1
        out.append(f"{name}_{count}" if count else name)
    return tuple(out)


def concrete(program: Program) -> Any:
    """The program traced: a ConcreteFunction whose inputs and outputs are in the same order."""
    import tensorflow as tf

    specs = [
        tf.TensorSpec(p.shape, p.dtype, name=f"infc_input_{i}")
        for i, p in enumerate(program.inputs)
    ]

    def whole(*tensors: Any) -> list[Any]:
        return [tf.identity(value) for value in program.call(tensors)]

    return tf.function(whole, input_signature=specs, autograph=False).get_concrete_function()


def runner(program: Program, function: Any) -> Runner:
    """Return a function from feeds to answers; `function` is what `concrete` made of `program`."""
    import tensorflow as tf

    def run(feeds: Tensors) -> dict[str, Any]:
        tensors = [tf.constant(feeds[p.name], p.dtype) for p in program.inputs]
        answers = function(*tensors)
        return {k: v.numpy() for k, v in zip(program.outputs, answers, strict=True)}

    return run
