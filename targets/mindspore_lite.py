"""MindSpore Lite: the artifact is a `.ms` flatbuffer, for phones with Kirin chips and for Ascend.

The converter and the runtime come in one wheel, for Python 3.7 only: they run in the toolchain
`mindspore-lite` (`infc toolchain install mindspore-lite`), through `mindspore_lite_worker`. What
the converter silently gets wrong is rewritten or refused before it sees it
(`mindspore_lite_lowering`, `mindspore_lite_operators`); both look at the graph in infc's own
environment. int64 becomes int32 in the artifact; the loaders convert and check.

Source: MindSpore Lite 2.0 (wheel 2.0.0).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from infc.diagnostics import fail
from infc.places import toolchain_folder
from infc.request import Precision
from infc.targets import (
    Artifact,
    BuildJob,
    LoaderSpec,
    RunJob,
    Target,
    Unsupported,
    Worker,
)

if TYPE_CHECKING:
    import onnx_ir as ir

    from infc.targets import Runner

NAME = "mindspore-lite"
SUMMARY = "MindSpore Lite: .ms for Android, Kirin and Ascend"
EXTRA = ""
DISTRIBUTIONS = ("mindspore-lite",)
MODULES: tuple[str, ...] = ()
OPTIONS: Mapping[str, str] = {}
PRECISIONS = (Precision.FP32, Precision.FP16)
MIN_OPSET = 13
THREADS = (1, 4)
"""Some of the runtime's kernels are wrong only with several threads."""

TOOLCHAIN = "mindspore-lite"


def worker(target: Target) -> Worker:
    """The toolchain of the wheel."""
    script = Path(__file__).with_name("mindspore_lite_worker.py")
    return Worker(target.toolchain or TOOLCHAIN, script)


def require_options(target: Target) -> None:
    """There are none whose values could be wrong."""


def legalize(model: ir.Model, target: Target) -> None:
    """Rewrite what the converter or the runtime gets wrong."""
    from infc.targets.mindspore_lite_lowering import lower

    lower(model)


def check(model: Path, target: Target) -> Sequence[Unsupported]:
    """Every node that the converter refuses or is known to get wrong."""
    import onnx_ir as ir

    from infc.targets.mindspore_lite_operators import unsupported

    return [Unsupported(*row) for row in unsupported(ir.load(model))]


def build(job: BuildJob) -> Artifact:
    """Not here: `mindspore_lite_worker.build`, in the toolchain."""
    raise NotImplementedError


def open(job: RunJob) -> Runner:
    """Not here: `mindspore_lite_worker.run`, in the toolchain."""
    raise NotImplementedError


def device(target: Target) -> str:
    """The CPU stands in for every device: the wheel has no other kernels."""
    return "CPU"


def _package() -> Path | None:
    """The folder of the wheel in the toolchain: headers and libraries are in it."""
    found = sorted(toolchain_folder(TOOLCHAIN).glob("lib/python3*/site-packages/mindspore_lite"))
    return found[0] if found else None


def _sdk() -> dict[str, str]:
    """CMake's MINDSPORE_LITE_ROOT.

    Raises:
        InfcError: E501 where the toolchain is not installed.
    """
    package = _package()
    if package is None:
        raise fail(
            "E501",
            "the headers and libraries of MindSpore Lite were not found",
            help=f"infc toolchain install {TOOLCHAIN}",
        )
    return {"MINDSPORE_LITE_ROOT": str(package)}


def _library_path() -> list[Path]:
    package = _package()
    return [package / "lib"] if package else []


LOADER = LoaderSpec("mindspore_lite", _sdk, _library_path)
