"""The user's own code: a factory, a class, or a module that is there already.

Whatever is random in it is seeded, the same way each time, so that the model that is exported and
the model that gives the reference answers are one.
"""

from __future__ import annotations

import contextlib
import inspect
import os
import random
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infc.diagnostics import did_you_mean, fail
from infc.frontends.pytorch.failures import blamed
from infc.user_code import Reference, load_module


@dataclass(frozen=True, slots=True)
class Examples:
    """What a module can be called with: positional arguments and keyword arguments."""

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, value: Any) -> Examples:
        """A tuple or list holds positional arguments, a mapping keyword arguments."""
        if isinstance(value, Mapping):
            return cls(kwargs={str(k): v for k, v in value.items()})
        if isinstance(value, tuple | list):
            return cls(tuple(value))
        return cls((value,))


@contextlib.contextmanager
def at_home(home: Path) -> Iterator[None]:
    """In the user's folder: what the code opens by a relative path is there."""
    before = Path.cwd()
    os.chdir(home)
    try:
        yield
    finally:
        os.chdir(before)


def seed() -> None:
    """Start every source of random numbers that a factory may draw from anew."""
    import numpy as np
    import torch

    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)


def make(text: str, home: Path) -> tuple[Any, Examples | None]:
    """Call what `text` names; return the module and the example inputs that came with it.

    Raises:
        InfcError: E114 where it is not there, raises, or gives no module.
    """
    import torch

    reference = Reference.parse(text)
    assert reference is not None, "the driver has parsed it"
    if reference.is_file and not (home / reference.module).is_file():
        raise fail("E100", f"`{reference.module}` cannot be read: there is no such file")
    with at_home(home):
        seed()
        with blamed("E114", f"`{reference.module}` cannot be imported", _import_help(reference)):
            found = getattr(load_module(reference, home), reference.name, None)
        if found is None:
            names = [n for n in vars(_module(reference)) if not n.startswith("_")]
            raise fail(
                "E114",
                f"`{reference.module}` has no `{reference.name}`",
                help=did_you_mean(reference.name, names).rstrip("; "),
            )
        if not isinstance(found, torch.nn.Module):
            seed()
            help = "name a function without parameters that returns the module"
            help = help if _takes_arguments(found) else ""
            with blamed("E114", f"`{text}` does not return a module", help, text):
                found = found()
    found, examples = _parted(found)
    if not isinstance(found, torch.nn.Module):
        what = type(found).__name__
        raise fail(
            "E114",
            f"`{text}` returns {what}, not a module",
            help="return a torch.nn.Module, (module, example inputs), or (module, positional "
            "inputs, keyword inputs)",
        )
    return _unwrapped(found), examples


def _takes_arguments(made: Any) -> bool:
    """Whether `made` cannot be called without arguments."""
    try:
        inspect.signature(made).bind()
    except TypeError:
        return True
    except ValueError:  # written in C
        return False
    return False


def _parted(found: Any) -> tuple[Any, Examples | None]:
    """What a function gave: the module, and the examples that came with it."""
    if isinstance(found, tuple) and len(found) == 2:
        return found[0], Examples.of(found[1])
    if isinstance(found, tuple) and len(found) == 3 and isinstance(found[2], Mapping):
        positional = Examples.of(found[1]).args if found[1] is not None else ()
        return found[0], Examples(positional, Examples.of(found[2]).kwargs)
    return found, None


def _unwrapped(module: Any) -> Any:
    """The module itself, without what torch.compile or DataParallel put around it."""
    import torch

    parallel = torch.nn.DataParallel | torch.nn.parallel.DistributedDataParallel
    while isinstance(module, parallel) or hasattr(module, "_orig_mod"):
        module = module.module if isinstance(module, parallel) else module._orig_mod
    return module


def make_importable(home: Path) -> None:
    """Let modules of the user's be found, as for a pickle that names them."""
    if str(home) not in sys.path:
        sys.path.insert(0, str(home))


def _module(reference: Reference) -> Any:
    stem = f"infc_user_{Path(reference.module).stem}"
    return sys.modules[stem if reference.is_file else reference.module]


def _import_help(reference: Reference) -> str:
    if reference.is_file:
        return ""
    return "it is looked for in the current folder and among the installed packages"
