"""Checkpoints: weights without the code of the module that they belong to.

A state dict lies at the top, or under one of `PLACES`; wrappers (DataParallel, torch.compile,
Lightning) put a prefix before every name, which goes where the module's own names say so.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from infc.diagnostics import fail
from infc.frontends.containers import pickles, shards, weight_index
from infc.frontends.pytorch.failures import blamed
from infc.frontends.sniff import Kind

PLACES = ("state_dict", "model_state_dict", "model", "module", "net", "network", "weights")
MAX_SHOWN = 10


def read(path: Path, kind: Kind, allow_pickle: bool) -> Any:
    """What the file holds: a mapping, or, with `allow_pickle`, perhaps a module.

    Raises:
        InfcError: E113 where loading it would run code, E114 where torch cannot load it, E116 and
            E117 for its archive; E101 and E103 for a file that an index names.
    """
    import torch

    if kind is Kind.SHARDED_CHECKPOINT:
        return _read_all(path, allow_pickle)

    if kind is Kind.SAFETENSORS:
        from safetensors.torch import load_file

        with blamed("E114", f"`{path.name}` cannot be loaded"):
            return load_file(path)
    pickles.require_safe(path, allow_pickle)
    help = "call infc where Python finds the code that the file names" if allow_pickle else ""
    with (
        blamed("E114", f"`{path.name}` cannot be loaded", help, path.name),
        torch.serialization.safe_globals(_numpy_globals()),
    ):
        return torch.load(
            path,
            map_location="cpu",
            weights_only=not allow_pickle,
            mmap=kind is Kind.TORCH_WEIGHTS,
        )


def _read_all(path: Path, allow_pickle: bool) -> dict[str, Any]:
    """The tensors of the index `path`, each from the file that it names for it."""
    state: dict[str, Any] = {}
    for file, names in weight_index.shards(path).items():
        held = read(file, shards.kind_of(file), allow_pickle)
        there = held if isinstance(held, Mapping) else {}
        absent = [name for name in names if name not in there]
        if absent:
            raise shards.absent(file, absent)
        state |= {name: there[name] for name in names}
    return state


def _numpy_globals() -> list[Any]:
    """What `pickles.NUMPY_GLOBALS` names: a metric or a curve beside the weights is numpy's."""
    import numpy as np
    from numpy._core import multiarray

    made = [
        (getattr(multiarray, name), f"numpy.{core}.multiarray.{name}")
        for core in ("core", "_core")
        for name in ("scalar", "_reconstruct")
    ]
    dtypes = {type(np.dtype(code)) for code in np.typecodes["All"] if code != "O"}
    return [*made, np.ndarray, np.dtype, *dtypes]


def fill(module: Any, held: Any, title: str, called: str) -> None:
    """Give `module` the weights in `held`, every one of them.

    Raises:
        InfcError: E114 that names what is missing, left over, or of another shape.
    """
    state = _state_dict(held, title)
    own = module.state_dict(keep_vars=True)
    state = _unprefixed(state, own)
    shapes = [
        f"{name} ({_shape(state[name])} in the file, {_shape(own[name])} in the module)"
        for name in state
        if name in own and own[name].shape != state[name].shape
    ]
    there = {id(own[name]) for name in state if name in own}
    missing = [
        name
        for name, tensor in own.items()
        if name not in state
        and id(tensor) not in there  # tied to one that is there
        and not name.endswith("num_batches_tracked")  # not in files of torch before 0.4.1
    ]
    unexpected = [name for name in state if name not in own]
    wrong = (("missing", missing), ("not in the module", unexpected), ("of another shape", shapes))
    notes = tuple(f"{what}: {_shown(names)}" for what, names in wrong if names)
    if notes:
        raise fail(
            "E114",
            f"the weights in `{title}` are not those of `{called}`",
            notes=notes,
            help="it is one of several files: name their `.index.json`, or the folder that it is in"
            if missing and re.search(r"-\d{5}-of-\d{5}\.", title)
            else "name a function that builds the module as it was built for training",
        )
    with blamed("E114", f"`{called}` does not take the weights in `{title}`"):
        module.load_state_dict(state, strict=False, assign=_has_no_values(own))


def _has_no_values(own: Mapping[str, Any]) -> bool:
    return any(tensor.is_meta for tensor in own.values())


def _state_dict(held: Any, title: str) -> dict[str, Any]:
    """The names and tensors in what a checkpoint holds."""
    import torch

    for _ in range(2):  # the place in a place: {"model": {"state_dict": ...}}
        if isinstance(held, torch.nn.Module):
            held = held.state_dict()
        if not isinstance(held, Mapping) or _tensors(held) == len(held):
            break
        inner = [held[p] for p in PLACES if isinstance(held.get(p), Mapping | torch.nn.Module)]
        if not inner:
            break
        held = inner[0]
    if isinstance(held, Mapping) and _tensors(held):
        return {str(k): v for k, v in held.items() if isinstance(v, torch.Tensor)}
    keys = [f"`{k}`" for k in list(held)[:MAX_SHOWN]] if isinstance(held, Mapping) else []
    what = f"a mapping with the keys {', '.join(keys)}" if keys else f"a {type(held).__name__}"
    raise fail(
        "E114",
        f"`{title}` holds no state dict, but {what}",
        help=f"it is looked for at the top and under {', '.join(f'`{p}`' for p in PLACES)}",
    )


def _tensors(held: Mapping[str, Any]) -> int:
    """How many values are tensors."""
    import torch

    return sum(isinstance(value, torch.Tensor) for value in held.values())


def _unprefixed(state: dict[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """`state` without the prefix of all its names whose going matches most of `own`'s."""
    best, first = state, next(iter(state), "")
    words = first.split(".")
    for count in range(1, len(words)):
        prefix = ".".join(words[:count]) + "."
        inner = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
        if len(inner.keys() & own.keys()) > len(best.keys() & own.keys()):
            best = inner
    return best


def _shown(names: list[str]) -> str:
    rest = f" and {len(names) - MAX_SHOWN} more" if len(names) > MAX_SHOWN else ""
    return ", ".join(names[:MAX_SHOWN]) + rest


def _shape(tensor: Any) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"
