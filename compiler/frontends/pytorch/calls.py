"""What a module is called with: its inputs, flat and named, with an example tensor for each.

The names are those of `forward`'s parameters. Shapes come from `--input`, from the examples that
came with the model, or both: an `--input` replaces the example of its name. A dimension that may
vary is given a size of two or more, since torch takes a one for a constant.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from infc.diagnostics import did_you_mean, fail
from infc.frontends.pytorch.loading import Loaded
from infc.frontends.pytorch.structure import is_tensor, leaves, replaced, unique
from infc.frontends.pytorch.user_models import Examples
from infc.input_spec import Dim, InputSpec

SAMPLE_BATCH, SAMPLE_DIM = 2, 24
"""Sizes that a dimension without bounds is exported at."""


@dataclass(frozen=True, slots=True)
class Input:
    """A tensor that goes in.

    `dims` are what the user said about each dimension, None where nothing was said at all; `labels`
    are the names of those that may vary, "" for the others.
    """

    name: str
    example: Any
    dims: tuple[Dim, ...] | None = None
    labels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Call:
    """A call: arguments in the user's structure, and the tensors in them as `inputs`."""

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    inputs: tuple[Input, ...]

    @property
    def names(self) -> list[str]:
        """Of the inputs."""
        return [i.name for i in self.inputs]

    @property
    def examples(self) -> tuple[Any, ...]:
        """The tensors, in order."""
        return tuple(i.example for i in self.inputs)

    def rebuilt(self, tensors: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments with `tensors` in place of the examples."""
        rest = iter(tensors)
        args = tuple(replaced(value, lambda _: next(rest)) for value in self.args)
        return args, {k: replaced(v, lambda _: next(rest)) for k, v in self.kwargs.items()}


def plan(loaded: Loaded, specs: Sequence[InputSpec]) -> Call:
    """What `loaded` is exported with.

    Raises:
        InfcError: E106 for an `--input` that does not fit, E115 for an input without a shape.
    """
    parameters = _parameters(loaded)
    args, kwargs = _arguments(loaded.examples, specs, parameters)
    found = [leaf for leaf in _named(args, kwargs, parameters) if is_tensor(leaf[1])]
    names = _exported_names(loaded) or unique([name for name, _ in found], set())
    given = {spec.name: spec for spec in specs}
    _require_wide(loaded, specs)
    for name in (name for name in given if name not in names):
        raise fail(
            "E106",
            f"the model has no input `{name}`",
            help=f"{did_you_mean(name, names)}its inputs: {', '.join(f'`{n}`' for n in names)}",
        )
    inputs = [
        _input(name, tensor, given.get(name))
        for name, (_, tensor) in zip(names, found, strict=True)
    ]
    return Call(args, kwargs, tuple(_labelled(inputs)))


def _require_wide(loaded: Loaded, specs: Sequence[InputSpec]) -> None:
    """E106 for an input of 16 bits to a module that is imported in float32."""
    for spec in specs:
        if spec.dtype in loaded.widened:
            raise fail(
                "E106",
                f"`--input {spec}`: the module is in {spec.dtype} and is imported in float32, "
                "its inputs with it",
                help="leave the type out; `--io native` gives the artifact inputs of 16 bits",
            )


def _parameters(loaded: Loaded) -> dict[str, inspect.Parameter]:
    """The parameters of `forward`, without `self`."""
    kind, empty = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.empty
    if loaded.scripted:
        return {
            row.name: inspect.Parameter(
                row.name, kind, default=row.default_value if row.has_default_value() else empty
            )
            for row in loaded.module.forward.schema.arguments[1:]
        }
    return dict(inspect.signature(loaded.module.forward).parameters)


def _arguments(
    examples: Examples | None,
    specs: Sequence[InputSpec],
    parameters: Mapping[str, inspect.Parameter],
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments: the examples, and a blank for each parameter that only a spec names."""
    args = examples.args if examples else ()
    kwargs = dict((examples.kwargs if examples else None) or {})
    order = [p for p in parameters.values() if p.kind is not p.VAR_KEYWORD]
    there = {name for name, _ in zip(parameters, args, strict=False)} | set(kwargs)
    variadic = any(p.kind is p.VAR_POSITIONAL for p in order)
    for spec in specs:
        parameter = parameters.get(spec.name)
        if spec.name in there or (examples is not None and parameter is None):
            continue
        if parameter is not None and parameter.kind not in (
            parameter.VAR_POSITIONAL,
            parameter.VAR_KEYWORD,
        ):
            kwargs[spec.name] = _blank(spec)
        elif variadic:
            args = (*args, _blank(spec))
        elif any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            kwargs[spec.name] = _blank(spec)
    _require_all(order, {*there, *kwargs}, len(args), specs)
    if not args and not kwargs and order:
        _ask_for([p.name for p in order][:1])
    places = {name: place for place, name in enumerate(parameters)}
    ordered = sorted(kwargs, key=lambda name: places.get(name, len(places)))
    return args, {name: kwargs[name] for name in ordered}


def _require_all(
    order: Sequence[inspect.Parameter],
    there: set[str],
    positional: int,
    specs: Sequence[InputSpec],
) -> None:
    """E115 where a parameter without a default is given nothing, E106 where a name is wrong."""
    lacking = [
        p.name
        for i, p in enumerate(order)
        if i >= positional
        and p.default is p.empty
        and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        and p.name not in there
    ]
    if not lacking:
        return
    known = [p.name for p in order]
    for spec in specs:
        if spec.name not in known and spec.name not in there:
            raise fail(
                "E106",
                f"the model has no input `{spec.name}`",
                help=f"{did_you_mean(spec.name, known)}"
                f"its inputs: {', '.join(f'`{n}`' for n in known)}",
            )
    _ask_for(lacking)


def _ask_for(names: Sequence[str]) -> None:
    shown = ", ".join(f"`{name}`" for name in names)
    verb = "have" if len(names) > 1 else "has"
    raise fail(
        "E115",
        f"{shown} {verb} no shape",
        help=" ".join(f"`--input {name}=1..8x3x224x224`" for name in names[:1])
        + " for an image, `:int64` behind it for token ids; or let the function that makes the "
        "model return (model, example inputs)",
    )


def _named(
    args: tuple[Any, ...], kwargs: Mapping[str, Any], parameters: Mapping[str, inspect.Parameter]
) -> list[tuple[str, Any]]:
    """The leaves of the arguments, under the names of their parameters."""
    names, rest = [], ""
    for p in parameters.values():
        if p.kind is p.VAR_POSITIONAL:
            rest = p.name
        elif p.kind not in (p.KEYWORD_ONLY, p.VAR_KEYWORD):
            names.append(p.name)
    found: list[tuple[str, Any]] = []
    for i, value in enumerate(args):
        name = names[i] if i < len(names) else f"{rest or 'input'}_{i - len(names)}"
        found.extend(leaves(value, getattr(value, "infc_name", name)))
    for name, value in kwargs.items():
        found.extend(leaves(value, name))
    return found


def _exported_names(loaded: Loaded) -> list[str]:
    """The names in a torch.export program: it has made them flat already."""
    if loaded.exported is None:
        return []
    tensors = {
        node.name
        for node in loaded.exported.graph.nodes
        if node.op == "placeholder" and is_tensor(node.meta.get("val"))
    }
    return [name for name in loaded.exported.graph_signature.user_inputs if name in tensors]


def _blank(spec: InputSpec) -> Any:
    """A tensor of the rank and type of `spec` without values, which knows its name."""
    import torch

    dtype = getattr(torch, spec.dtype or "float32")
    tensor = torch.empty([0 for _ in spec.dims], dtype=dtype, device="meta")
    tensor.infc_name = spec.name
    return tensor


def _input(name: str, tensor: Any, spec: InputSpec | None) -> Input:
    """The input with an example of the size that `spec` asks for."""
    blank = hasattr(tensor, "infc_name")
    if spec is None:
        return Input(name, filled(tensor, tensor.shape, tensor.dtype))
    if len(spec.dims) != tensor.dim():
        has = "x".join(map(str, tensor.shape)) or "a scalar"
        raise fail(
            "E106",
            f"`--input {spec}` has rank {len(spec.dims)}, the model's `{name}` has "
            f"{tensor.dim()} ({has})",
        )
    import torch

    shape = [
        _size(dim, axis, 0 if blank else tensor.shape[axis]) for axis, dim in enumerate(spec.dims)
    ]
    dtype = getattr(torch, spec.dtype) if spec.dtype else tensor.dtype
    dims = tuple(
        Dim(low=size, typical=size, high=size) if dim == Dim() and not blank else dim
        for dim, size in zip(spec.dims, shape, strict=True)
    )
    return Input(name, filled(tensor, shape, dtype), dims)


def _size(dim: Dim, axis: int, example: int) -> int:
    """What a dimension is exported at."""
    if dim.fixed is not None:
        return dim.fixed
    if dim == Dim() and example:
        return example
    wanted = max(dim.typical or 0, example)
    wanted = wanted if wanted >= 2 else (SAMPLE_DIM if axis else SAMPLE_BATCH)
    return min(max(wanted, dim.low or 0), dim.high or wanted)


def filled(tensor: Any, shape: Sequence[int], dtype: Any) -> Any:
    """`tensor` where it has that shape and type, else random values: integers are 0 or 1."""
    import torch

    if not tensor.is_meta and list(tensor.shape) == list(shape) and tensor.dtype == dtype:
        return tensor.detach().to("cpu")
    draw = torch.Generator().manual_seed(0)
    if dtype.is_floating_point or dtype.is_complex:
        return torch.randn(list(shape), generator=draw).to(dtype)
    return torch.randint(0, 2, list(shape), generator=draw).to(dtype)


def _labelled(inputs: Sequence[Input]) -> list[Input]:
    """The inputs with names for their dynamic dimensions.

    A range on the first axis is the batch, and one with all inputs of that range.
    """
    taken = {dim.name for i in inputs for dim in i.dims or () if dim.name}
    batch: Dim | None = None

    def label(i: Input, axis: int, dim: Dim) -> str:
        nonlocal batch
        if dim.fixed is not None:
            return ""
        if dim.name:
            return dim.name
        if axis == 0 and "batch" not in taken and batch in (None, dim):
            batch = dim
            return "batch"
        return f"{i.name}_dim{axis}"

    return [
        Input(i.name, i.example, i.dims, tuple(label(i, n, d) for n, d in enumerate(i.dims or ())))
        for i in inputs
    ]
