"""Targets and back ends: how they are found.

A *back end* is a module in this folder (or one that another distribution offers through the
`infc.targets` entry point). A *target* is what the user names: a hardware profile in
`profiles.toml`, or a back end's own name with its defaults. `protocol` says what both are.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, cast

from infc.diagnostics import did_you_mean, fail
from infc.request import Precision
from infc.targets.protocol import (
    Artifact,
    BackEnd,
    BackEndError,
    BuildJob,
    LoaderSpec,
    RunJob,
    Target,
    Unsupported,
    Worker,
)

if TYPE_CHECKING:
    from infc.targets.protocol import Runner, Tensors

__all__ = [
    "BACK_ENDS",
    "Artifact",
    "BackEnd",
    "BackEndError",
    "BuildJob",
    "LoaderSpec",
    "RunJob",
    "Runner",
    "Target",
    "Tensors",
    "Unsupported",
    "Worker",
    "back_end",
    "choice",
    "choose",
    "configure",
    "in_toolchains",
    "look_up",
    "module_of",
    "profiles",
]

BACK_ENDS = (
    "onnxruntime",
    "openvino",
    "torchscript",
    "mindspore-lite",
    "tensorrt",
    "tensorrt-rtx",
    "tvm",
)
"""The back ends that ship with infc; each is a module in this folder, `-` written `_`."""


@cache
def profiles() -> Mapping[str, Target]:
    """All targets by name: the profiles in order, then the back ends of other distributions."""
    table = tomllib.loads(Path(__file__).with_name("profiles.toml").read_text(encoding="utf-8"))
    out = {}
    for name, row in table.items():
        precision = Precision(row.get("precision", "fp32"))
        out[name] = Target(**{**row, "name": name, "precision": precision})
    for name, module in _offered().items():
        out.setdefault(name, Target(name, name, f"the back end that `{module}` offers"))
    return out


@cache
def _offered() -> Mapping[str, str]:
    """Back end name to module, of the `infc.targets` entry points; none is imported."""
    from importlib.metadata import entry_points

    return {point.name: point.module for point in sorted(entry_points(group="infc.targets"))}


def look_up(name: str) -> Target:
    """Return the target called `name`.

    Raises:
        InfcError: E201, with the nearest names.
    """
    known = profiles()
    if name in known:
        return known[name]
    hint = did_you_mean(name, known)
    raise fail("E201", f"there is no target `{name}`", help=f"{hint}`infc targets` lists them all")


def choose(
    names: Sequence[str],
    precision: Precision | None,
    options: Mapping[str, str],
    toolchains: Mapping[str, str] | None = None,
) -> tuple[Target, ...]:
    """Look up and configure every target of a command; each takes the options it has.

    `toolchains` maps back ends to the environments that their workers run in.

    Raises:
        InfcError: E201, or E205 for an option that none of them has, E110 for a toolchain of a
            back end that none of them has.
    """
    found = [look_up(name) for name in dict.fromkeys(names)]
    owned = [{k: v for k, v in options.items() if k in back_end(t.back_end).OPTIONS} for t in found]
    for key in options:
        if not any(key in own for own in owned):
            configure(found[0], precision, {key: options[key]})
    chosen = [configure(t, precision, own) for t, own in zip(found, owned, strict=True)]
    return in_toolchains(chosen, toolchains or {})


def in_toolchains(chosen: Sequence[Target], given: Mapping[str, str]) -> tuple[Target, ...]:
    """Return `chosen` with the environments that the user names for their back ends' workers.

    They are `given`, back end to toolchain, or in the environment (INFC_TOOLCHAIN_OPENVINO); ""
    is infc's own. A target that neither is about keeps its own.

    Raises:
        InfcError: E110 for a back end in `given` that no target has.
    """
    have = list(dict.fromkeys(t.back_end for t in chosen))
    for name, toolchain in given.items():
        if name not in have:
            raise fail(
                "E110",
                f"`--toolchain {name}={toolchain}`: no target here has the back end `{name}`",
                help=f"{did_you_mean(name, have)}the targets have {', '.join(have)}",
            )
    return tuple(replace(t, toolchain=_toolchain(t, given)) for t in chosen)


def _toolchain(target: Target, given: Mapping[str, str]) -> str:
    if target.back_end in given:
        return given[target.back_end]
    variable = "INFC_TOOLCHAIN_" + target.back_end.upper().replace("-", "_")
    return os.environ.get(variable) or target.toolchain


def configure(target: Target, precision: Precision | None, options: Mapping[str, str]) -> Target:
    """Return `target` with the user's precision and options applied.

    Raises:
        InfcError: E205 for an option, a value of one, or a precision that the back end does not
            have.
    """
    end = back_end(target.back_end)
    for key in options:
        if key not in end.OPTIONS:
            have = ", ".join(f"`{k}`" for k in sorted(end.OPTIONS)) or "none"
            raise fail("E205", f"`{end.NAME}` has no option `{key}`", help=f"its options: {have}")
    chosen = precision or target.precision
    if chosen not in end.PRECISIONS:
        have = ", ".join(f"`{p}`" for p in end.PRECISIONS)
        raise fail(
            "E205", f"`{target.name}` cannot be built at `{chosen}`", help=f"its precisions: {have}"
        )
    from infc.targets.abilities import seal_of

    seal = seal_of(end)
    secret = seal.secrets if seal else frozenset()
    configured = replace(
        target,
        precision=chosen,
        options={**target.options, **{k: v for k, v in options.items() if k not in secret}},
        secrets={k: v for k, v in options.items() if k in secret},
    )
    end.require_options(configured)
    return configured


def choice(target: Target, option: str, values: Sequence[str], default: str) -> str:
    """The value of `option` in `target.options`, one of `values`.

    Raises:
        InfcError: E205 where it is none of them.
    """
    value = target.options.get(option, default)
    if value not in values:
        have = ", ".join(f"`{v}`" for v in values)
        raise fail("E205", f"`-X {option}={value}`: no such value", help=f"its values: {have}")
    return value


def module_of(name: str) -> str:
    """The import path of the back end called `name`.

    Raises:
        InfcError: E201 where no back end has that name.
    """
    if name in BACK_ENDS:
        return f"infc.targets.{name.replace('-', '_')}"
    if name in _offered():
        return _offered()[name]
    raise fail("E201", f"there is no back end `{name}`", help="`infc targets` lists them all")


def back_end(name: str) -> BackEnd:
    """Import the module of the back end called `name`; its SDK is not imported."""
    return cast(BackEnd, import_module(module_of(name)))
