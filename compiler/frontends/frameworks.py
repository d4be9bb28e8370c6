"""The frameworks that models are imported from, and where their exporters run."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec

from infc.diagnostics import fail
from infc.frontends.sniff import Kind
from infc.targets import Worker


@dataclass(frozen=True, slots=True)
class Framework:
    """A framework.

    `module` does the work, in a worker: it has `open` and `device`, as a back end has, for running
    the source model, and the action `import` (`infc.frontends.importing`). `needs` are modules that
    must be importable there; the extra of the same name brings them. `toolchain` is the environment
    that is used where infc's own lacks them, "" for none.
    """

    name: str
    module: str
    needs: tuple[str, ...]
    kinds: tuple[Kind, ...]
    toolchain: str = ""


FRAMEWORKS = {
    row.name: row
    for row in (
        Framework(
            "pytorch",
            "infc.frontends.pytorch",
            ("torch", "onnxscript"),
            (
                Kind.PYTHON,
                Kind.TORCHSCRIPT,
                Kind.TORCH_EXPORT,
                Kind.TORCH_WEIGHTS,
                Kind.PICKLE,
                Kind.SAFETENSORS,
                Kind.SHARDED_CHECKPOINT,
            ),
        ),
        Framework(
            "tensorflow",
            "infc.frontends.tensorflow",
            ("tensorflow", "tf2onnx"),
            (Kind.SAVED_MODEL, Kind.KERAS, Kind.HDF5, Kind.GRAPH_DEF, Kind.TFLITE),
            toolchain="tensorflow",
        ),
    )
}


def of_back_ends(toolchains: Mapping[str, str]) -> dict[str, str]:
    """What of `--toolchain` is about back ends, not about frameworks."""
    return {name: value for name, value in toolchains.items() if name not in FRAMEWORKS}


def framework_of(kind: Kind) -> Framework | None:
    """The one that reads models of that kind; None where none does."""
    return next((row for row in FRAMEWORKS.values() if kind in row.kinds), None)


def worker_of(framework: Framework, given: Mapping[str, str]) -> Worker:
    """Where its exporter runs.

    That is the environment that the user names, in `given` (framework to toolchain) or in
    INFC_TOOLCHAIN_<FRAMEWORK>, "" being infc's own; else infc's own where it has what is needed,
    or the framework's toolchain.

    Raises:
        InfcError: E501 where neither has it.
    """
    named = given.get(framework.name, os.environ.get(f"INFC_TOOLCHAIN_{framework.name.upper()}"))
    if named:
        return Worker(named)
    missing = [name for name in framework.needs if find_spec(name) is None]
    if not missing:
        return Worker()
    if named is None and framework.toolchain:
        from infc.workers import toolchains

        if toolchains.state(framework.toolchain) is not toolchains.State.MISSING:
            return Worker(framework.toolchain)
    ways = [f"pip install 'infc[{framework.name}]'"]
    if framework.toolchain:
        ways.insert(0, f"infc toolchain install {framework.toolchain}")
    raise fail(
        "E501",
        f"reading this model takes {framework.name}: {', '.join(missing)} is not installed",
        help=" or ".join(f"`{way}`" for way in ways),
    )
