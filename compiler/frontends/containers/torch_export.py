"""torch.export programs (.pt2): the graph and its signature are JSON.

    models/model.json                       from torch 2.8 on, in the folder of the archive
    serialized_exported_program.json        before
    data/weights/, data/constants/          tensors, and a JSON file that says which is which
    data/sample_inputs/model.pt             a pickle

Source: torch/_export/serde/schema.py (`GraphModule`, `GraphSignature`, `TensorMeta`),
torch/export/pt2_archive/constants.py.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

from infc.frontends.containers import torch_archives
from infc.frontends.containers.archives import damaged
from infc.frontends.containers.description import Description, Value, Weights, is_size
from infc.frontends.containers.pickles import unsafe_in
from infc.frontends.containers.torch_archives import MAX_TEXT_BYTES, TorchArchive

DTYPES = {
    1: "uint8", 2: "int8", 3: "int16", 4: "int32", 5: "int64", 6: "float16", 7: "float32",
    8: "float64", 9: "complex32", 10: "complex64", 11: "complex128", 12: "bool", 13: "bfloat16",
    28: "uint16", 29: "float8_e4m3fn", 30: "float8_e5m2", 31: "float8_e4m3fnuz",
    32: "float8_e5m2fnuz", 33: "float8_e8m0fnu", 34: "uint32", 35: "uint64",
}  # fmt: skip
"""`ScalarType`."""
_SYMBOL = re.compile(r"(?:Symbol\('(\w+)'.*\)|(\w+))")
_WEIGHTS = ("parameter", "buffer")


def describe(path: Path) -> Description:
    """The program in the archive `path`: the first, where it holds several.

    Raises:
        InfcError: E116 where it is not safe to open, E117 where it is damaged.
    """
    with torch_archives.open_archive(path) as archive:
        found = [*archive.under("models", ".json"), "serialized_exported_program.json"]
        names = [name for name in found if archive.has(name)]
        if not names:
            raise damaged(str(path), "it holds no program")
        program = _document(archive, names[0])
        unsafe = list(dict.fromkeys(unsafe_in(archive)))
    try:
        return _described(program, unsafe, len(names))
    except (ValueError, KeyError, TypeError, AttributeError, IndexError) as error:
        raise damaged(str(path), f"`{names[0]}` is not as it should be") from error


def _document(archive: TorchArchive, name: str) -> dict[str, Any]:
    try:
        document = json.loads(archive.read(name, MAX_TEXT_BYTES))
    except (ValueError, RecursionError) as error:
        raise damaged(archive.label, f"`{name}` is no JSON") from error
    if not isinstance(document, dict):
        raise damaged(archive.label, f"`{name}` is no program")
    return document


def _described(program: dict[str, Any], unsafe: list[str], models: int) -> Description:
    graph = program["graph_module"]["graph"]
    signature = program["graph_module"]["signature"]
    metas: dict[str, Any] = graph["tensor_values"]
    bounds = _bounds(program.get("range_constraints", {}))
    weights = [
        _value(row[kind]["arg"]["name"], metas, {}, row[kind].get(f"{kind}_name", ""))
        for row in signature["input_specs"]
        for kind in _WEIGHTS
        if kind in row
    ]
    inputs = [_user(r["user_input"], metas, bounds) for r in _with(signature, "input_specs")]
    outputs = [_user(r["user_output"], metas, bounds) for r in _with(signature, "output_specs")]
    operators = Counter(str(node["target"]).removeprefix("torch.ops.") for node in graph["nodes"])
    version = program.get("torch_version", "")
    schema = program.get("schema_version", {})
    details = {"schema": f"{schema['major']}.{schema['minor']}"} if schema else {}
    if models > 1:
        details["programs"] = str(models)
    return Description(
        "torch-export",
        "torch.export program",
        version=f"PyTorch {version}" if version else "",
        inputs=inputs,
        outputs=outputs,
        weights=Weights.of(weights),
        tensors=weights,
        operators=operators,
        details=details,
        unsafe=unsafe,
    )


def _with(signature: dict[str, Any], specs: str) -> list[dict[str, Any]]:
    key = specs.replace("_specs", "").join(("user_", ""))
    return [row for row in signature[specs] if key in row]


def _user(spec: dict[str, Any], metas: dict[str, Any], bounds: dict[str, Any]) -> Value:
    """An input or output of the user's: a tensor, or a constant of Python's."""
    argument: dict[str, Any] = spec["arg"]
    kind, inner = next(iter(argument.items()))
    if kind == "as_tensor":
        return _value(inner["name"], metas, bounds)
    name = inner.get("as_name", "") if isinstance(inner, dict) else ""
    return Value(str(name), kind.removeprefix("as_"))


def _value(name: str, metas: dict[str, Any], bounds: dict[str, Any], shown: str = "") -> Value:
    meta = metas[name]
    shape = tuple(map(_dim, meta["sizes"]))
    hints = {_dim(row): _hint(row) for row in meta["sizes"]}
    own = {
        name: (bounds[name][0], hints[name] or bounds[name][0], bounds[name][1])
        for name in shape
        if isinstance(name, str) and name in bounds
    }
    return Value(shown or name, DTYPES.get(meta["dtype"], "unknown"), shape, bounds=own)


def _dim(row: dict[str, Any]) -> int | str | None:
    """A size, or the name of a symbol; None for an expression of symbols."""
    if "as_int" in row:
        return int(row["as_int"]) if is_size(row["as_int"]) else None
    match = _SYMBOL.fullmatch(str(row["as_expr"]["expr_str"])[:1000])
    return (match[1] or match[2]) if match else None


def _hint(row: dict[str, Any]) -> int:
    hint = (row.get("as_expr") or {}).get("hint") or {}
    return hint["as_int"] if is_size(hint.get("as_int")) else 0


def _bounds(rows: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """The symbols that have a highest size."""
    found = {}
    for name, row in rows.items():
        low, high = row.get("min_val"), row.get("max_val")
        if is_size(high) and high < 1 << 31:
            found[name] = (low if is_size(low) else 0, high)
    return found
