"""Nested values as flat lists of named tensors, and back.

    {"ids": a, "masks": (b, None)}, named `batch`   ->   batch_ids: a, batch_masks_0: b

The names of leaves follow the user's own structure: keys of mappings, fields of dataclasses and
named tuples, positions in lists and tuples. What is no tensor - None, numbers, strings, types -
stays where it is, as a constant.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any

PLAIN = (type(None), bool, int, float, complex, str, bytes)
"""What a module may take and return beside tensors."""

MAX_DEPTH = 8
"""Of attributes in attributes."""

Leaf = tuple[str, Any]


def is_plain(value: Any) -> bool:
    """Whether `value` is a number, a name or None; under torch.export, a size that may vary."""
    import torch

    symbols = (torch.SymInt, torch.SymFloat, torch.SymBool, torch.dtype, torch.device)
    return isinstance(value, (*PLAIN, *symbols))


def is_tensor(value: Any) -> bool:
    """Whether `value` can be an input or an output."""
    import torch

    return isinstance(value, torch.Tensor)


def leaves(value: Any, name: str, *, objects: bool = False) -> Iterator[Leaf]:
    """Every leaf in `value`, in the order that the values have in it, with its name.

    What is no container is a leaf: a tensor, a plain value, or an object that nothing is known of.
    With `objects`, attributes that hold tensors are looked into.
    """
    children = _children(value)
    if children is None and objects:
        children = _attributes(value)
    if children is None:
        yield name, value
        return
    for key, child in children:
        yield from leaves(child, f"{name}_{key}" if name else str(key), objects=objects)


def replaced(value: Any, change: Callable[[Any], Any]) -> Any:
    """`value` with every tensor in it changed, in the order of `leaves`."""
    if is_tensor(value):
        return change(value)
    if isinstance(value, Mapping) and _registered(value) is None:
        return {key: replaced(child, change) for key, child in value.items()}
    if isinstance(value, tuple):
        parts = [replaced(child, change) for child in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    if isinstance(value, list):
        return [replaced(child, change) for child in value]
    if _is_record(value):
        fields = {k: replaced(child, change) for k, child in _children(value) or ()}
        return dataclasses.replace(value, **fields)
    # A leaf of its own where the type is not registered, and then left as it is.
    return _pytree().tree_map(lambda leaf: change(leaf) if is_tensor(leaf) else leaf, value)


def unique(names: list[str], taken: set[str]) -> list[str]:
    """`names`, those that occur before or are in `taken` with a number behind them."""
    seen, result = set(taken), []
    for name in names:
        number, free = 1, name
        while free in seen:
            number += 1
            free = f"{name}_{number}"
        seen.add(free)
        result.append(free)
    return result


def _children(value: Any) -> list[Leaf] | None:
    """The (key, child) pairs of a container; None for what is none."""
    if is_tensor(value) or is_plain(value):
        return None
    if isinstance(value, Mapping):
        return [(str(key), child) for key, child in value.items()]
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return list(zip(value._fields, value, strict=True))
    if isinstance(value, list | tuple):
        return [(str(i), child) for i, child in enumerate(value)]
    if _is_record(value):
        return [(f.name, getattr(value, f.name)) for f in dataclasses.fields(value) if f.init]
    return _registered(value)


def _attributes(value: Any) -> list[Leaf] | None:
    """The attributes of an object of any class that hold tensors, as a key-value cache's do."""
    if is_plain(value) or is_tensor(value) or not hasattr(value, "__dict__"):
        return None
    return [(k, v) for k, v in _public(value) if _holds_tensors(v, MAX_DEPTH)] or None


def _public(value: Any) -> list[Leaf]:
    return [(k, v) for k, v in getattr(value, "__dict__", {}).items() if not k.startswith("_")]


def _holds_tensors(value: Any, depth: int) -> bool:
    if is_tensor(value):
        return True
    if depth == 0 or is_plain(value):
        return False
    inner = [child for _, child in _children(value) or _public(value)]
    return any(_holds_tensors(child, depth - 1) for child in inner)


def _is_record(value: Any) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def _registered(value: Any) -> list[Leaf] | None:
    """The leaves of a type that is registered with torch's pytree, None where it is not."""
    tree = _pytree()
    pairs, spec = tree.tree_flatten_with_path(value)
    if spec.is_leaf():
        return None
    return [(_spell(path), leaf) for path, leaf in pairs]


def _spell(path: Any) -> str:
    words = [getattr(k, "key", getattr(k, "idx", getattr(k, "name", None))) for k in path]
    return "_".join(map(str, words))


def _pytree() -> Any:
    from torch.utils import _pytree

    return _pytree
