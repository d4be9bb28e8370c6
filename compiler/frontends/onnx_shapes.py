"""`--input`: fix, rename or bound the dimensions of a model's inputs.

A symbol of the model stands for one number wherever it occurs: where inputs `a` and `b` both have
`N`, `--input a=4x3` makes `N` 4 in `b` too, and `--input a=1..8x3` bounds it for both. Two
`--input` that give one symbol two values contradict the model.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence

import onnx

from infc.frontends.findings import Findings, quoted
from infc.input_spec import Dim, InputSpec

Bounds = Mapping[str, tuple[int, int, int]]

ANONYMOUS = frozenset({"", "?", "*", "-1", "None", "unk", "unknown"})
"""What exporters write for "I do not know": two such dimensions need not be equal."""
MAX_SYMBOL = 100
MAX_ELEMENTS = 2**31 - 1
"""Of one input. Loaders count in size_t, but several runtimes count in int32."""


def name_dims(graph: onnx.GraphProto) -> bool:
    """Give every dynamic dimension of an input a name of its own: `<input>_dim<axis>`.

    Returns whether any was changed. Names that are long, or that onnx_ir would read as a power
    (a symbol may be an expression there, and `9**9**9` a number too large for any machine), go.
    """
    changed = False
    for value in graph.input:
        shape = value.type.tensor_type.shape
        for axis, dim in enumerate(shape.dim):
            if dim.HasField("dim_value"):
                continue
            if dim.dim_param in ANONYMOUS or not usable(dim.dim_param):
                dim.dim_param = f"{value.name}_dim{axis}"
                changed = True
    return changed


def usable(symbol: object) -> bool:
    """Whether a dimension may be called `symbol`."""
    return (
        isinstance(symbol, str)
        and len(symbol) <= MAX_SYMBOL
        and symbol.isprintable()
        and "**" not in symbol
    )


def apply_inputs(graph: onnx.GraphProto, specs: Sequence[InputSpec], findings: Findings) -> Bounds:
    """Write `specs` into the inputs of `graph`, add an E106 for what does not fit.

    Returns the bounds of the symbols that were given any.
    """
    values = {v.name: v for v in graph.input}
    meaning: dict[str, tuple[Dim, str]] = {}
    bounds: dict[str, tuple[int, int, int]] = {}
    for spec in specs:
        value = values.get(spec.name)
        if value is None:
            _unknown(spec, list(values), findings)
            continue
        if value.type.WhichOneof("value") not in (None, "tensor_type"):
            continue  # no tensor: the check of the interface says so
        _check_dtype(spec, value, findings)
        shape = value.type.tensor_type.shape
        if not value.type.tensor_type.HasField("shape"):
            for axis in range(len(spec.dims)):
                shape.dim.add().dim_param = f"{spec.name}_dim{axis}"
            shape.SetInParent()
        if len(shape.dim) != len(spec.dims):
            has = "x".join(map(_spell, shape.dim)) or "a scalar"
            findings.add(
                "E106",
                f"`--input {spec}` has rank {len(spec.dims)}, the model's "
                f"{quoted(spec.name)} has {len(shape.dim)} ({has})",
            )
            continue
        for axis, (dim, wanted) in enumerate(zip(shape.dim, spec.dims, strict=True)):
            _give(dim, wanted, axis, spec, meaning, findings)
    for symbol, (dim, _) in meaning.items():
        if dim.fixed is None and dim.low is not None and dim.high is not None:
            bounds[symbol] = (dim.low, dim.typical or dim.low, dim.high)
    numbers = {symbol: dim for symbol, (dim, _) in meaning.items()}
    for value in (*graph.input, *graph.value_info, *graph.output):
        for dim in value.type.tensor_type.shape.dim:
            substitute(dim, numbers)
    for value in graph.input:
        _check_size(value, bounds, bool(specs), findings)
    return bounds


def _check_dtype(spec: InputSpec, value: onnx.ValueInfoProto, findings: Findings) -> None:
    code = value.type.tensor_type.elem_type
    if not spec.dtype or not code:
        return
    has = onnx.helper.tensor_dtype_to_np_dtype(code).name
    if spec.dtype != has:
        findings.add("E106", f"`--input {spec}`: the model's {quoted(spec.name)} is {has}")


def substitute(dim: onnx.TensorShapeProto.Dimension, meaning: Mapping[str, Dim]) -> None:
    """Replace a symbol by the number or the name that it was given."""
    known = meaning.get(dim.dim_param) if dim.dim_param else None
    if known is None:
        return
    if known.fixed is not None:
        dim.dim_value = known.fixed
    elif known.name is not None:
        dim.dim_param = known.name


def _give(
    dim: onnx.TensorShapeProto.Dimension,
    wanted: Dim,
    axis: int,
    spec: InputSpec,
    meaning: dict[str, tuple[Dim, str]],
    findings: Findings,
) -> None:
    if wanted == Dim():
        return
    given = f"`--input {spec}`"
    if dim.HasField("dim_value"):
        if wanted.fixed != dim.dim_value:
            findings.add(
                "E106",
                f"{given} makes dimension {axis} {wanted}, the model fixes it at {dim.dim_value}",
                help="export the model with a dynamic dimension there",
            )
        return
    before, by = meaning.setdefault(dim.dim_param, (wanted, given))
    if before != wanted:
        findings.add(
            "E106",
            f"{given} makes {quoted(dim.dim_param)} {wanted}, but {by} makes it {before}",
            help="a symbol of the model stands for one number wherever it occurs",
        )


def _unknown(spec: InputSpec, names: list[str], findings: Findings) -> None:
    near = difflib.get_close_matches(spec.name, [n for n in names if len(n) < 200], n=1)
    hint = f"did you mean {quoted(near[0])}? " if near else ""
    shown = ", ".join(map(quoted, names[:20])) or "none"
    more = f" and {len(names) - 20} more" if len(names) > 20 else ""
    findings.add(
        "E106",
        f"the model has no input {quoted(spec.name)}",
        help=f"{hint}its inputs: {shown}{more}",
    )


def _check_size(
    value: onnx.ValueInfoProto, bounds: Bounds, by_user: bool, findings: Findings
) -> None:
    """Refuse what no machine could feed, before something tries to allocate it."""
    most = [
        d.dim_value if d.HasField("dim_value") else bounds.get(d.dim_param, (1, 1, 1))[2]
        for d in value.type.tensor_type.shape.dim
    ]
    if math.prod(most) > MAX_ELEMENTS:
        findings.add(
            "E106" if by_user else "E104",
            f"input {quoted(value.name)} has {math.prod(most):.3g} elements; "
            f"infc stops at {MAX_ELEMENTS:.3g}",
        )


def _spell(dim: onnx.TensorShapeProto.Dimension) -> str:
    return str(dim.dim_value) if dim.HasField("dim_value") else dim.dim_param
