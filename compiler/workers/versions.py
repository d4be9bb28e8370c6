"""Which versions a back end's artifacts are built with."""

from __future__ import annotations

from importlib.metadata import version

from infc.targets import BackEnd, Target


def versions(end: BackEnd, target: Target) -> dict[str, str]:
    """Of the back end's distributions, in the environment that its workers run in.

    Raises:
        InfcError: E501, E507 where that is a toolchain which cannot be used.
    """
    toolchain = end.worker(target).toolchain
    if not toolchain:
        return {name: version(name) for name in end.DISTRIBUTIONS}
    from infc.workers import toolchains

    packages = toolchains.require(toolchain).packages
    return {name: packages[name] for name in end.DISTRIBUTIONS if name in packages}
