"""Keras's configuration of a model: JSON that names classes, and what it would run.

    {"class_name": "Functional", "config": {"layers": [...], "input_layers": [["x", 0, 0]], ...}}

Keras 3 adds the module of each class. A layer `Lambda` holds marshalled bytecode; other modules
than Keras's, and some functions of Keras's own, have been used to run code or to fetch files when
a model is loaded (CVE-2024-3660, CVE-2025-1550, CVE-2025-8747).

Source: keras/src/saving/serialization_lib.py, keras/src/models/functional.py.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from infc.diagnostics import fail
from infc.frontends.containers.archives import damaged
from infc.frontends.containers.description import Value, shape_of

MAX_CONFIG_BYTES = 64 << 20
CODE = ("Lambda", "__lambda__")
UNSAFE_MODULES = (
    *("keras.utils", "keras.config", "keras.saving", "keras.export", "keras.datasets"),
    *("keras.src.utils", "keras.src.config", "keras.src.saving", "keras.src.export"),
    *("keras.src.backend.config", "keras.src.datasets"),
)
"""Parts of Keras that have no layers in them, but functions that download, unpack and switch off
the safe mode."""
UTILITIES = ("FeatureSpace",)
"""What may be saved of them all the same."""
_MODELS = ("Functional", "Model", "Sequential")


def parse(data: bytes | str, label: str) -> dict[str, Any]:
    """The configuration in `data`.

    Raises:
        InfcError: E117 where it is no JSON object.
    """
    try:
        config = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise damaged(label, "its configuration is no JSON") from error
    if not isinstance(config, dict):
        raise damaged(label, "its configuration is no object")
    return config


def objects(config: Any) -> Iterator[dict[str, Any]]:
    """Every object with a class, in order, without recursion: a tree can be deep."""
    pending = [config]
    while pending:
        value = pending.pop()
        if isinstance(value, dict):
            if isinstance(value.get("class_name"), str):
                yield value
            pending.extend(reversed(value.values()))
        elif isinstance(value, list):
            pending.extend(reversed(value))


def code_in(config: Any) -> list[str]:
    """What loading the model would run that is none of Keras's layers; each once."""
    return list(dict.fromkeys(name for row in objects(config) if (name := _code(row))))


def require_harmless(config: dict[str, Any], label: str | Path, allow_code: bool) -> None:
    """Refuse a model that would run code when it is loaded.

    Raises:
        InfcError: E113 with what it would run, unless `allow_code`.
    """
    found = code_in(config)
    if found and not allow_code:
        raise fail(
            "E113",
            f"loading `{label}` would run code from it: {', '.join(f'`{n}`' for n in found[:10])}",
            help="make a Lambda a layer class of your own and name that (`--model file.py:Layer`), "
            "export the\nmodel as a SavedModel, or trust the file with `--allow-pickle`",
        )


def _code(row: dict[str, Any]) -> str:
    name, module = row["class_name"], row.get("module")
    if name.rpartition(">")[2] in CODE:
        inner = row.get("config")
        own = inner.get("name") if isinstance(inner, dict) else None
        return f"{name} layer {own}" if isinstance(own, str) and name == "Lambda" else name
    if not isinstance(module, str) or name in UTILITIES:
        return ""
    top = module.partition(".")[0]
    if top != "builtins" and top in sys.stdlib_module_names and top != "__main__":
        return f"{module}.{name}"
    if any(module == unsafe or module.startswith(f"{unsafe}.") for unsafe in UNSAFE_MODULES):
        return f"{module}.{name}"
    return ""


def layers_of(config: dict[str, Any]) -> Counter[str]:
    """How many layers of each class there are, in models inside of models too."""
    found: Counter[str] = Counter()
    pending = [config]
    while pending:
        for layer in _layers(pending.pop()):
            if layer.get("class_name") in _MODELS:
                pending.append(layer)
            else:
                found[str(layer.get("class_name"))] += 1
    return found


def signature_of(config: dict[str, Any]) -> tuple[list[Value] | None, list[Value] | None]:
    """The inputs with their shapes, and the outputs, whose shapes are not recorded."""
    layers = _layers(config)
    inner = config.get("config")
    if not layers or not isinstance(inner, dict):
        return None, None
    named = {_name(layer): layer for layer in layers}
    if config.get("class_name") == "Sequential":
        first, last = layers[0], layers[-1]
        inputs = [_input(first)] if _input_shape(first) is not None else None
        return inputs, [Value(_name(last), _dtype(last))]
    ins, outs = (list(_ends(inner.get(key))) for key in ("input_layers", "output_layers"))
    if not ins:
        return None, None
    return (
        [_input(named.get(name, {"config": {"name": name}})) for name in ins],
        [Value(name, _dtype(named.get(name, {}))) for name in outs],
    )


def _layers(config: dict[str, Any]) -> list[dict[str, Any]]:
    inner = config.get("config")
    rows = inner.get("layers") if isinstance(inner, dict) else inner  # a list before Keras 2.2
    return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []


def _ends(value: Any, depth: int = 0) -> Iterator[str]:
    """The layers in `["x", 0, 0]`, lists of such, and dictionaries of such."""
    if depth > 20:
        return
    if isinstance(value, list) and len(value) == 3 and isinstance(value[0], str):
        yield value[0]
    elif isinstance(value, (list, dict)):
        for row in value if isinstance(value, list) else value.values():
            yield from _ends(row, depth + 1)


def _name(layer: dict[str, Any]) -> str:
    inner = layer.get("config")
    name = inner.get("name") if isinstance(inner, dict) else None
    return str(name or layer.get("name") or "")


def _input(layer: dict[str, Any]) -> Value:
    return Value(_name(layer), _dtype(layer), shape_of(_input_shape(layer)))


def _input_shape(layer: dict[str, Any]) -> Any:
    inner = layer.get("config")
    if not isinstance(inner, dict):
        return None
    built = layer.get("build_config")
    own = inner.get("batch_shape") or inner.get("batch_input_shape")
    return own or (built.get("input_shape") if isinstance(built, dict) else None)


def _dtype(layer: dict[str, Any]) -> str:
    """The element type: a name, or a policy with one."""
    inner = layer.get("config")
    dtype = inner.get("dtype") if isinstance(inner, dict) else None
    if isinstance(dtype, dict):
        policy = dtype.get("config")
        dtype = policy.get("name") if isinstance(policy, dict) else None
    return dtype.removeprefix("mixed_") if isinstance(dtype, str) else "float32"
