"""infc: an ahead-of-time compiler driver for neural networks.

The Python API has the power of the command line:

    import infc
    infc.compile("model.onnx", targets=["cpu"], output="build")
    infc.optimize("model.onnx", "smaller.onnx")
    infc.verify("build/model-cpu", through="cpp")

Importing this package imports neither onnx nor a vendor SDK; the first call does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from infc.lazy_sympy import install as _install_lazy_sympy

if TYPE_CHECKING:
    from infc.api import (
        bench,
        compile,
        debug_accuracy,
        finish,
        inspect,
        optimize,
        package,
        quantize,
        tune,
        verify,
    )
    from infc.budget import BudgetOptions
    from infc.diagnostics import Diagnostic, ExitCode, InfcError
    from infc.import_options import ImportOptions
    from infc.preprocessing import Preprocess
    from infc.prune_options import PruneOptions
    from infc.request import (
        CalibrationOptions,
        PassOptions,
        Precision,
        VerifyOptions,
        WorkerLimits,
    )
    from infc.tuning_options import TuningOptions

_install_lazy_sympy()

__version__ = "0.1.0"
__all__ = [
    "BudgetOptions",
    "CalibrationOptions",
    "Diagnostic",
    "ExitCode",
    "ImportOptions",
    "InfcError",
    "PassOptions",
    "Precision",
    "Preprocess",
    "PruneOptions",
    "TuningOptions",
    "VerifyOptions",
    "WorkerLimits",
    "__version__",
    "bench",
    "compile",
    "debug_accuracy",
    "finish",
    "inspect",
    "optimize",
    "package",
    "quantize",
    "tune",
    "verify",
]

_HOMES = {
    "infc.api": (
        *("bench", "compile", "debug_accuracy", "finish", "inspect", "optimize", "package"),
        *("quantize", "tune", "verify"),
    ),
    "infc.budget": ("BudgetOptions",),
    "infc.diagnostics": ("Diagnostic", "ExitCode", "InfcError"),
    "infc.import_options": ("ImportOptions",),
    "infc.preprocessing": ("Preprocess",),
    "infc.prune_options": ("PruneOptions",),
    "infc.tuning_options": ("TuningOptions",),
    "infc.request": (
        "CalibrationOptions",
        "PassOptions",
        "Precision",
        "VerifyOptions",
        "WorkerLimits",
    ),
}


def __getattr__(name: str) -> Any:
    """Resolve the public API on first use, so that ``import infc`` stays cheap (PEP 562)."""
    for module, names in _HOMES.items():
        if name in names:
            from importlib import import_module

            return getattr(import_module(module), name)
    raise AttributeError(f"module 'infc' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
