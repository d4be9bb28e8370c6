"""infc: an ahead-of-time compiler driver for neural networks.

The Python API has the power of the command line:

    import infc
    bundles = infc.compile("model.onnx", targets=["cpu"], output="build")
    infc.optimize("model.onnx", "smaller.onnx")
    infc.verify("build/model-cpu", through="cpp")

Importing this package imports neither onnx nor a vendor SDK; the first call does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from infc.lazy_sympy import install as _install_lazy_sympy

if TYPE_CHECKING:
    from infc.api import bench, compile, inspect, optimize, verify
    from infc.diagnostics import Diagnostic, InfcError

_install_lazy_sympy()

__version__ = "0.1.0"
__all__ = [
    "Diagnostic",
    "InfcError",
    "__version__",
    "bench",
    "compile",
    "inspect",
    "optimize",
    "verify",
]


def __getattr__(name: str) -> Any:
    """Resolve the public API on first use, so that ``import infc`` stays cheap (PEP 562)."""
    if name in ("Diagnostic", "InfcError"):
        from infc import diagnostics

        return getattr(diagnostics, name)
    if name in __all__:
        from infc import api

        return getattr(api, name)
    raise AttributeError(f"module 'infc' has no attribute {name!r}")
