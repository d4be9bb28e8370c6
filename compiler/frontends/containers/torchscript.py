"""TorchScript archives: the example inputs of a trace, the arguments of `forward`, the weights.

    code/__torch__/...py   the source of each class, in TorchScript
    data.pkl               the module: its class, parameters and buffers
    traced_inputs.pkl      {"forward": [inputs]} of a traced module

Source: torch/csrc/jit/serialization/export_module.cpp.
"""

from __future__ import annotations

import re
from collections import Counter
from io import BytesIO
from pathlib import Path
from typing import Any

from infc.frontends.containers import torch_archives
from infc.frontends.containers.archives import damaged
from infc.frontends.containers.description import Description, Value, Weights
from infc.frontends.containers.pickle_machine import (
    Followed,
    Global,
    Made,
    MalformedPickleError,
    Table,
    follow,
)
from infc.frontends.containers.pickles import (
    MAX_PICKLE_BYTES,
    is_torchscript,
    offenders,
    unsafe_in,
)
from infc.frontends.containers.state_dicts import tensor_of, tensors_in
from infc.frontends.containers.torch_archives import TorchArchive

_CALL = re.compile(r"\b(?:torch|ops\.(\w+))\.(\w+)\(")
_FORWARD = re.compile(r"^  def forward\((.*?)\) -> (.*?):$", re.MULTILINE | re.DOTALL)
_ARGUMENT = re.compile(r"^\s*(\w+): (.+?)(?:=.*)?$", re.DOTALL)
_MAX_SIGNATURE = 100_000
# torch sets classes of one name in one process apart: torch/csrc/jit/frontend/name_mangler.cpp
_MANGLED = re.compile(r"\b___torch_mangle_\d+\.")


def describe(path: Path) -> Description:
    """The module in the archive `path`.

    Raises:
        InfcError: E116 where it is not safe to open, E117 where it is damaged.
    """
    with torch_archives.open_archive(path) as archive:
        seen = _followed(archive, "data.pkl")
        sources = {name: archive.text(name) for name in archive.under("code", ".py")}
        examples = _traced_inputs(archive)
        unsafe = [*offenders(seen, is_torchscript), *unsafe_in(archive, but="data.pkl")]
        version = archive.text("version")
    tensors = list(tensors_in(seen.value))
    maker = seen.value.maker if isinstance(seen.value, Made) else None
    inputs, outputs = _signature(maker, sources, examples)
    calls = Counter(
        f"{space}.{name}" if space else name
        for text in sources.values()
        for space, name in _CALL.findall(text)
    )
    details = {"class": _MANGLED.sub("", str(maker))} if isinstance(maker, Global) else {}
    details["made by"] = "torch.jit.script" if examples is None else "torch.jit.trace"
    details |= {"archive": f"version {version}"} if version else {}
    return Description(
        "torchscript",
        "TorchScript archive",
        inputs=inputs,
        outputs=outputs,
        weights=Weights.of(tensors),
        tensors=tensors,
        operators=calls,
        details=details,
        unsafe=list(dict.fromkeys(unsafe)),
    )


def _followed(archive: TorchArchive, name: str) -> Followed:
    try:
        return follow(BytesIO(archive.read(name, MAX_PICKLE_BYTES)))
    except MalformedPickleError as error:
        raise damaged(archive.label, f"its `{name}` cannot be followed: {error}") from error


def _traced_inputs(archive: TorchArchive) -> list[Value] | None:
    """What `forward` was traced with; None where it was not traced, or that is not recorded."""
    if not archive.has("traced_inputs.pkl"):
        return None
    methods = _untagged(_followed(archive, "traced_inputs.pkl").value)
    pairs = methods.pairs if isinstance(methods, Table) else []
    rows: Any = next((_untagged(value) for key, value in pairs if key == "forward"), [])
    rows = rows if isinstance(rows, (list, tuple)) else []
    return [tensor_of("", row) or Value("", "object") for row in rows]


def _untagged(value: Any) -> Any:
    """What a type tag was put on: torch.jit._pickle.restore_type_tag(value, type)."""
    for _ in range(10):
        if not (isinstance(value, Made) and str(value.maker).startswith("torch.jit._pickle.")):
            break
        value = value.arguments[0] if isinstance(value.arguments, tuple) else None
    return value


def _signature(
    maker: Any, sources: dict[str, str], examples: list[Value] | None
) -> tuple[list[Value] | None, list[Value] | None]:
    """The inputs and outputs of `forward`: names from its source, shapes from the trace."""
    if not isinstance(maker, Global):
        return examples, None
    source = sources.get(f"code/{maker.module.replace('.', '/')}.py", "")
    start = source.find(f"class {maker.name}(Module):")
    match = _FORWARD.search(source[start : start + _MAX_SIGNATURE]) if start >= 0 else None
    if match is None:
        return examples, None
    arguments = [_ARGUMENT.match(part) for part in _split(match[1])[1:]]
    inputs = [_value(*a.groups()) for a in arguments if a is not None]
    if examples is not None and len(examples) == len(inputs):
        inputs = [Value(i.name, e.dtype, e.shape) for i, e in zip(inputs, examples, strict=True)]
    returned = match[2].strip()
    inner = re.fullmatch(r"Tuple\[(.*)\]", returned, re.DOTALL)
    types = _split(inner[1]) if inner else [returned]
    names = ["output"] if len(types) == 1 else [f"output{i}" for i in range(len(types))]
    return inputs, [_value(name, kind) for name, kind in zip(names, types, strict=True)]


def _value(name: str, kind: str) -> Value:
    """A value of a TorchScript type, of which tensors have no element type."""
    kind = " ".join(kind.split())
    return Value(name, "tensor" if kind == "Tensor" else kind)


def _split(text: str) -> list[str]:
    """`text` split at the commas that stand in no brackets."""
    parts, depth = [""], 0
    for character in text:
        depth += {"[": 1, "(": 1, "]": -1, ")": -1}.get(character, 0)
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts if part.strip()]
