"""Whether a torch.export archive says no more than a program of torch's own operators.

Its JSON is not code, and still torch does with it what Python would: the expression of a symbolic
dimension goes through sympy into `eval`; the name of a node's target is looked up attribute by
attribute from `torch`, `math` and `operator`, and called when the program runs; the structure of
inputs and outputs may name modules to import. What is not of the plain kind is refused before torch
reads it.

Source: torch/_export/serde/serialize.py (`_parse_sym_expr`, `deserialize_operator`) and
torch/utils/_pytree.py (`treespec_loads`), torch 2.13.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from infc.diagnostics import fail
from infc.frontends.containers import archives, pickles
from infc.frontends.containers.torch_archives import TorchArchive

MAX_BYTES = 256 << 20
MAX_EXPRESSION = 10_000
MAX_POWERS = 4
_FUNCTIONS = frozenset(
    {
        *("Symbol", "Integer", "Float", "Rational", "Add", "Mul", "Pow", "Max", "Min", "Abs"),
        *("Eq", "Ne", "Lt", "Le", "Gt", "Ge", "Equality", "Unequality", "Not", "And", "Or"),
        *("StrictLessThan", "LessThan", "StrictGreaterThan", "GreaterThan", "floor", "ceiling"),
        *("FloorDiv", "ModularIndexing", "Where", "PythonMod", "Mod", "CleanDiv", "CeilToInt"),
        *("FloorToInt", "CeilDiv", "LShift", "RShift", "PowByNatural", "FloatPow"),
        *("FloatTrueDiv", "IntTrueDiv", "IsNonOverlappingAndDenseIndicator", "TruncToFloat"),
        *("TruncToInt", "RoundToInt", "RoundDecimal", "ToFloat", "Identity", "sqrt"),
        *("OpaqueUnaryFn_sqrt", "OpaqueUnaryFn_log2", "BitwiseFn_bitwise_and"),
    }
)
_NAMES = frozenset({"true", "false", "True", "False", "oo", "int_oo", "I", "zoo", "nan"})
_SYMBOL = re.compile(r"[A-Za-z_]\w{0,60}")
_TARGET = re.compile(
    r"torch\.ops\.(?P<namespace>\w+)\.(?P<name>\w+)(?:\.\w+)?"
    r"|_?operator\.\w+|math\.\w+|torch\.sym_\w+"
    r"|torch\._higher_order_ops\.\w+\.\w+|torch\.(?:_sym|sym)\w*"
    r"|torch\._C\._functions\.\w+|torch\.amp\.autocast_mode\._(?:enter|exit)_autocast"
)
_NAMESPACES = frozenset(
    {"aten", "prims", "higher_order", "quantized", "quantized_decomposed", "torchvision"}
)
_TOUCHES_FILES = frozenset({"save", "load", "from_file", "open"})
_IMPORTS = ("__enum__", "default_factory_module")
_CALLERS = frozenset({"call", "methodcaller", "attrgetter", "setitem", "delitem"})


def require_plain(archive: TorchArchive, name: str, path: Path) -> None:
    """Refuse what a program of torch's own operators does not say.

    Raises:
        InfcError: E111 for operators that are not torch's, E113 for what would run code, E117
            where the program is no JSON.
    """
    try:
        document = json.loads(archive.read(name, MAX_BYTES))
        texts = list(_texts(document, ""))
    except (ValueError, RecursionError) as error:
        raise archives.damaged(archive.label, f"`{name}` is no JSON") from error
    strange = dict.fromkeys(f for key, text in texts if (f := _strange(key, text)))
    if strange:
        raise pickles.refusal(path, strange)
    others = dict.fromkeys(text for key, text in texts if key == "target" and _is_foreign(text))
    if others:
        shown = ", ".join(f"`{_operator(text)}`" for text in others)
        raise fail(
            "E111",
            f"{shown}: no operator of torch's own",
            where=path.name,
            help="export the program with torch's operators alone",
        )


def _texts(value: Any, key: str) -> Iterator[tuple[str, str]]:
    """Every text in a document, with the key it stands under; symbols' names as `symbol`."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, list):
        for child in value:
            yield from _texts(child, key)
    elif isinstance(value, dict):
        if key == "range_constraints":
            yield from (("symbol", name) for name in value)
        for name, child in value.items():
            yield from _texts(child, name)


def _strange(key: str, text: str) -> str:
    """What of a text would run code; "" where nothing would."""
    if key == "expr_str" and not is_expression(text):
        return f"the expression {text[:80]}"
    if key == "symbol" and not is_expression(text):
        return f"the symbol {text[:80]}"
    if key == "target" and not _is_target(text):
        return f"a call of {text[:80]}"
    return next((f"an import, {word}" for word in _IMPORTS if word in text), "")


def is_expression(text: str) -> bool:
    """Whether `text` is arithmetic over symbols and numbers that are not large."""
    if len(text) > MAX_EXPRESSION:
        return False
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    powers = sum(
        isinstance(n, ast.Pow) or (isinstance(n, ast.Name) and "Pow" in n.id)
        for n in ast.walk(tree)
    )
    return powers <= MAX_POWERS and all(map(_is_plain, ast.walk(tree)))


def _is_plain(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and node.func.id in _FUNCTIONS
    if isinstance(node, ast.Name):
        known = node.id in _FUNCTIONS or node.id in _NAMES
        return known or re.fullmatch(r"[a-z]{1,8}\d{1,9}|[A-Za-z]\w{0,30}", node.id) is not None
    if isinstance(node, ast.Constant):
        if isinstance(node.value, str):
            return _SYMBOL.fullmatch(node.value) is not None or _is_number(node.value)
        if isinstance(node.value, int):
            return abs(node.value) < 1 << 64
        return isinstance(node.value, float)
    plain = (ast.Expression, ast.BinOp, ast.UnaryOp, ast.Compare, ast.BoolOp, ast.keyword)
    return isinstance(
        node, (*plain, ast.operator, ast.unaryop, ast.cmpop, ast.boolop, ast.expr_context)
    ) and not isinstance(node, ast.MatMult)


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[+-]?\d{1,20}(?:\.\d{0,20})?(?:e[+-]?\d{1,3})?", text) is not None


def _is_target(text: str) -> bool:
    """Whether a node may call `text`; operators that torch does not know are not looked up."""
    match = _TARGET.fullmatch(text)
    if match is None:
        return not text.startswith(("torch", "math", "_operator", "operator", "#"))
    if "__" in text or text.rpartition(".")[2] in _CALLERS:
        return False
    return match["name"] not in _TOUCHES_FILES


def _is_foreign(text: str) -> bool:
    match = _TARGET.fullmatch(text)
    if match is None:
        return True
    return match["namespace"] is not None and match["namespace"] not in _NAMESPACES


def _operator(text: str) -> str:
    """`mylib::fused` of `torch.ops.mylib.fused.default`."""
    match = _TARGET.fullmatch(text)
    return f"{match['namespace']}::{match['name']}" if match and match["namespace"] else text
