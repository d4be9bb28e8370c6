"""Which versions a back end's artifacts are built with."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from infc.targets import BackEnd, Target

NOTE = "versions"
"""The note of an artifact that was built by something which is no Python package."""


def versions(end: BackEnd, target: Target, notes: Mapping[str, Any] = {}) -> dict[str, str]:
    """Of the back end's distributions, in the environment that its workers run in.

    `notes` are the artifact's, where there is one.

    Raises:
        InfcError: E501, E507 where that is a toolchain which cannot be used.
    """
    if NOTE in notes:
        return dict(notes[NOTE])
    toolchain = end.worker(target).toolchain
    if not toolchain:
        return _here(end.DISTRIBUTIONS)
    from infc.workers import toolchains

    packages = toolchains.require(toolchain).packages
    return {name: packages[name] for name in end.DISTRIBUTIONS if name in packages}


def _here(names: Iterable[str]) -> dict[str, str]:
    found = {}
    for name in names:
        with contextlib.suppress(PackageNotFoundError):  # an SDK that is no package
            found[name] = version(name)
    return found
