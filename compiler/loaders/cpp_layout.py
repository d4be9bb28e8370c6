"""The signature as text of the C and C++ templates: declarations, calls, tables.

The templates say where things stand; what depends on the tensors is put together here.
"""

from __future__ import annotations

from typing import Any

from infc.loaders.rendering import c_string, call
from infc.loaders.signature import Dim, Signature, Tensor


def layout(s: Signature) -> dict[str, Any]:
    """What the templates lay out: declarations broken into lines, expressions."""
    api = f"{s.upper}_API int {s.name}"
    load = ("const char* path", f"const {s.name}_options* options", f"{s.name}_model** model")
    build = ("const char* path", f"const {s.name}_options* options")
    cpp_arguments = [d.identifier for d in s.dims] + [t.identifier for t in s.tensors]
    return {
        "s": s,
        "build_declaration": call(f"{api}_build(", build),
        "build_definition": call(f"int {s.name}_build(", build),
        "load_declaration": call(f"{api}_load(", load),
        "load_definition": call(f"int {s.name}_load(", load),
        "run_declaration": call(f"{api}_run(", s.arguments),
        "run_definition": call(f"int {s.name}_run(", s.arguments),
        "method": call("  void run(", [*_dim_parameters(s), *map(_cpp_parameter, s.tensors)]),
        "example": call("model.run(", cpp_arguments, ");").replace("\n", "\n//   "),
        "cpp_example": call("model.run(", cpp_arguments),
        "c_example": call(f"{s.name}_run(", [a.split()[-1].partition("[")[0] for a in s.arguments]),
        "c_call": call(
            f"    {'const int ' if s.is_known else '  '}status = {s.name}_run(",
            ["model_.get()", *_c_arguments(s)],
        ),
        "run_call": call("    model_.run(", _harness_arguments(s)),
        "requirements": [
            call(
                "    require(", [f'"{t.identifier}"', f"{t.identifier}.size()", _count(s, t)], ");"
            )
            for t in s.tensors
            if t.is_known
        ],
        "axes": {t.identifier: ", ".join(_axes(s, t, "INFC_DIM({})")) for t in s.tensors},
        "axes_names": {
            t.identifier: f"k{t.role.capitalize()}{i}Axes"
            for tensors in (s.inputs, s.outputs)
            for i, t in enumerate(tensors)
        },
        "cpp_types": {t.c_type: cpp_type(t) for t in s.tensors},
        "dims": [_harness_dim(d) for d in s.dims],
        "described": {t.identifier: _harness_tensor(s, t) for t in s.tensors},
    }


def _dim_parameters(s: Signature) -> list[str]:
    return [f"std::int64_t {d.identifier}" for d in s.dims]


def cpp_type(t: Tensor) -> str:
    """The element type in C++."""
    return f"std::{t.c_type}" if t.c_type.endswith("_t") else t.c_type


def _cpp_parameter(t: Tensor) -> str:
    if t.role == "input":
        return f"Span<const {cpp_type(t)}> {t.identifier}"
    kind = "Span<{}>" if t.is_known else "Tensor<{}>&"
    return f"{kind.format(cpp_type(t))} {t.identifier}"


def _c_arguments(s: Signature) -> list[str]:
    out = [d.identifier for d in s.dims]
    for t in s.tensors:
        if t.is_known:
            out.append(f"{t.identifier}.data()")
            continue
        out += [
            f"{t.identifier}.data.data()",
            f"{t.identifier}.data.size()",
            f"{t.identifier}_shape",
        ]
        if t.axes is None:
            out.append(f"&{t.identifier}_rank")
    return out


def _harness_arguments(s: Signature) -> list[str]:
    out = [f"r.dims[{i}]" for i in range(len(s.dims))]
    out += [f"r.inputs[{i}].as<{cpp_type(t)}>()" for i, t in enumerate(s.inputs)]
    return out + [
        f"r.outputs[{i}].as<{cpp_type(t)}>()" if t.is_known else f"{t.identifier}_"
        for i, t in enumerate(s.outputs)
    ]


def _count(s: Signature, t: Tensor) -> str:
    """The number of elements, in the words of the C header."""
    if t.is_static:
        return f"{s.upper}_{t.role.upper()}_{t.identifier.upper()}_COUNT"
    arguments = ", ".join(d.identifier for d in t.dims)
    return f"{s.name}_{t.role}_{t.identifier}_count({arguments})"


def _axes(s: Signature, t: Tensor, dim: str, unknown: str = "INFC_UNKNOWN") -> list[str]:
    return [
        dim.format(s.dims.index(a)) if isinstance(a, Dim) else unknown if a is None else str(a)
        for a in t.axes or ()
    ]


def _harness_dim(d: Dim) -> str:
    typical = d.bounds[1] if d.bounds else 0
    return f"{{{c_string(d.name)}, {d.low}, {d.high}, {typical}}}"


def _harness_tensor(s: Signature, t: Tensor) -> str:
    dtype = "boolean" if t.dtype == "bool" else t.dtype
    axes = ", ".join(_axes(s, t, "dim({})", "kUnknown"))
    unknown = ", true" if t.axes is None else ""
    return f"{{{c_string(t.name)}, harness::DType::{dtype}, {{{axes}}}{unknown}}}"
