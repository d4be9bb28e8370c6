"""What a Keras configuration asks for, judged before Keras acts on it.

A configuration is a tree of objects, `{"class_name": "Dense", "config": {...}}`, in which Keras 3
writes the module as well. Nearly all of a tree is Keras's own layers. A `Lambda` holds marshalled
bytecode, and other classes are the user's.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from infc.diagnostics import fail
from infc.frontends.containers import keras_config
from infc.frontends.containers.keras_config import CODE, objects

OWN = ("keras", "tf_keras", "tensorflow.keras", "tensorflow.python.keras", "builtins")
"""Modules that Keras may look names up in; `builtins` stands for its plain functions."""
STRUCTURE = re.compile(r"Functional|Model|Sequential|InputLayer|__\w+__")
"""What makes a model of layers, and Keras's own notation for tensors, slices and the like."""
LEGACY = (
    ("DepthwiseConv2D", "groups", 1),
    ("DepthwiseConv1D", "groups", 1),
    ("Conv1DTranspose", "groups", 1),
    ("Conv2DTranspose", "groups", 1),
    ("Conv3DTranspose", "groups", 1),
    ("SeparableConv1D", "groups", 1),
    ("SeparableConv2D", "groups", 1),
    ("LSTM", "time_major", False),
    ("GRU", "time_major", False),
    ("SimpleRNN", "time_major", False),
    ("RNN", "time_major", False),
    ("Bidirectional", "time_major", False),
    ("TimeDistributed", "time_major", False),
)
"""What Keras 2 wrote for each layer of a class, and Keras 3 refuses, though it says nothing."""
MERGING = ("Add", "Subtract", "Multiply", "Maximum", "Minimum")
POLICIES = ("DTypePolicy", "Policy", "FloatDTypePolicy")
"""What a layer's `dtype` is written as: by Keras 3, by Keras 2, and by Keras 3.0 to 3.2."""
BFLOAT16 = ("bfloat16", "mixed_bfloat16")
MAX_NAMED = 10


def require_harmless(
    config: dict[str, Any], label: str, theirs: Collection[str], *, allow_code: bool
) -> None:
    """Refuse code, and classes that are neither Keras's nor among the names `theirs`.

    Raises:
        InfcError: E113 for code unless `allow_code`, E114 for the classes, all of them.
    """
    keras_config.require_harmless(config, label, allow_code)
    unknown = dict.fromkeys(_class(row) for row in objects(config) if not _is_known(row, theirs))
    if unknown:
        shown = ", ".join(f"`{name}`" for name in list(unknown)[:MAX_NAMED])
        more = f" and {len(unknown) - MAX_NAMED} more" if len(unknown) > MAX_NAMED else ""
        raise fail(
            "E114",
            f"`{label}` needs classes that Keras does not have: {shown}{more}",
            help="name the code that defines them, `--model file.py:Class`, or export the model as "
            "a\nSavedModel where they are: `model.export('folder')`",
        )


def _class(row: dict[str, Any]) -> str:
    return str(row.get("registered_name") or row["class_name"])


def _is_known(row: dict[str, Any], theirs: Collection[str]) -> bool:
    """Whether Keras, or the user's code, has the class of an object."""
    name, module = row["class_name"], row.get("module")
    registered = str(row.get("registered_name") or "")
    if STRUCTURE.fullmatch(name) or name in CODE:
        return True
    if {name, registered, registered.rpartition(">")[2], name.rpartition(">")[2]} & set(theirs):
        return True
    if isinstance(module, str) and module:
        return any(module == own or module.startswith(f"{own}.") for own in OWN)
    if ">" in name:
        return False
    return _has(name)


def _has(name: str) -> bool:
    """Whether Keras has a class called `name` in the modules that old files mean."""
    import keras

    places = (
        *(keras.layers, keras.initializers, keras.regularizers, keras.constraints),
        *(keras.activations, keras.optimizers, keras.optimizers.schedules, keras.losses),
        *(keras.metrics, keras.dtype_policies, keras.models),
    )
    return any(hasattr(place, name) for place in places)


def modernise(config: dict[str, Any]) -> bool:
    """Make of `config` what Keras 3 takes and means the same; whether anything had to change.

    What Keras 2 wrote and Keras 3 refuses, though it says nothing, is left out. `x + y` is written
    into a `.h5` under the name of the layer that adds, which takes its operands as one list.
    """
    changed = False
    for row in objects(config):
        inner = row.get("config")
        if not isinstance(inner, dict):
            continue
        for name, key, nothing in LEGACY:
            if row["class_name"] == name and key in inner and inner[key] == nothing:
                del inner[key]
                changed = True
        if row["class_name"] in MERGING and "module" not in row:
            for node in row.get("inbound_nodes") or ():
                changed |= _join_operands(node)
    return changed


def widen(config: dict[str, Any]) -> bool:
    """Let layers that compute in bfloat16 compute in float32; whether there was one.

    Under `mixed_bfloat16` their weights are in float32 already; those in bfloat16 fit into it.
    """
    changed = False
    for row in objects(config):
        inner = row.get("config")
        if not isinstance(inner, dict):
            continue
        for key in ("dtype", *(("name",) if row["class_name"] in POLICIES else ())):
            if inner.get(key) in BFLOAT16:
                inner[key] = "float32"
                changed = True
    return changed


def _join_operands(node: Any) -> bool:
    """Make one list of two tensors of the same rank; whether there were two."""
    args = node.get("args") if isinstance(node, dict) else None
    if not isinstance(args, list) or len(args) != 2:
        return False
    ranks = set()
    for arg in args:
        if not isinstance(arg, dict) or arg.get("class_name") != "__keras_tensor__":
            return False
        ranks.add(len(arg["config"]["shape"]))
    if len(ranks) != 1:
        return False
    node["args"] = [args]
    return True
