"""The Python API: the verbs of the command line as functions.

Every function raises `InfcError` where the command would print diagnostics and exit with another
code than 0; `error.diagnostics` holds them, `error.exit_code` the code.
"""

from __future__ import annotations

from infc.api.bundles import bench, debug_accuracy, finish, inspect, package, verify
from infc.api.compiling import compile, tune
from infc.api.graphs import optimize, quantize

__all__ = [
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
