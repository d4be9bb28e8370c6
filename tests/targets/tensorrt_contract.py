"""Which names of TensorRT's API the builder touches, read off its syntax tree.

A variable stands for an object of the API by its name (`API`); one that is neither in there nor
in `PYTHON` is an error, so that nothing new goes unchecked.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from infc.targets import tensorrt_builder

API = {
    "builder": "Builder",
    "network": "INetworkDefinition",
    "config": "IBuilderConfig",
    "parser": "OnnxParser",
    "profile": "IOptimizationProfile",
    "runtime": "Runtime",
    "engine": "ICudaEngine",
    "context": "IExecutionContext",
    "tensor": "ITensor",
    "t": "ITensor",
    "error": "ParserError",
    "e": "ParserError",
    "severity": "ILogger.Severity",
    "cache": "ITimingCache",
}
"""What a variable holds: a class of TensorRT's."""
MEMBERS = {"_engine": "ICudaEngine", "_context": "IExecutionContext", "_runtime": "Runtime"}
"""The same of `self.NAME`."""
_PYTHON = """
address addresses allocators answers argparse buffer contents contextlib counts ctypes cuda dict
done engine_path enum found given hashlib head hosted importlib json known log major message
minor name os parent parts path quoted ranged row rows said self session shown spec steps stream
subprocess sys tail tensors text time times_ms trt version command
"""
PYTHON = frozenset(_PYTHON.split())
"""Variables that are none of TensorRT's."""
CALLED_BACK = frozenset(("Log", "Monitor", "Allocator"))
OWN = frozenset(("reasons",))
"""Methods that the classes above have for themselves."""


def names() -> Iterator[tuple[str, str]]:
    """(function, dotted name below the module) of everything that the builder touches.

    Raises:
        ValueError: a variable that nothing is known of has an attribute.
    """
    tree = ast.parse(Path(tensorrt_builder.__file__).read_text(encoding="utf-8"))
    for function in (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)):
        caught = {h.name for h in ast.walk(function) if isinstance(h, ast.ExceptHandler)}
        for node in ast.walk(function):
            if isinstance(node, ast.ClassDef) and node.name in CALLED_BACK:
                base = ast.unparse(node.bases[0]).removeprefix("trt.")
                methods = (m.name for m in node.body if isinstance(m, ast.FunctionDef))
                yield from ((function.name, f"{base}.{m}") for m in methods if m not in OWN)
            if not isinstance(node, ast.Attribute):
                continue
            dotted = ast.unparse(node)
            if dotted.startswith("trt.") and "(" not in dotted:
                yield function.name, dotted.removeprefix("trt.")
                continue
            owner = _class_of(node.value, caught)
            if owner:
                yield function.name, f"{owner}.{node.attr}"


def _class_of(value: ast.expr, caught: set[str | None]) -> str | None:
    """The class whose attribute is read, None for what is no object of TensorRT's."""
    if isinstance(value, ast.Attribute):
        is_member = isinstance(value.value, ast.Name) and value.value.id == "self"
        return MEMBERS.get(value.attr) if is_member else None
    if not isinstance(value, ast.Name) or value.id in caught:
        return None
    if value.id in API:
        return API[value.id]
    if value.id in PYTHON or value.id[:1].isupper():
        return None
    raise ValueError(f"is `{value.id}` an object of TensorRT's? (`{ast.unparse(value)}`)")
