"""From a lowered ONNX file to a static plan of kernels for one processor."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnx

    from infc.targets.tvm_compiler.cpus import Cpu
    from infc.targets.tvm_compiler.forms.plan import Plan
    from infc.targets.tvm_compiler.scheduling.kernels import Chosen


def compile_model(
    path: Path,
    cpu: Cpu,
    chosen: Chosen | None = None,
    report: Callable[..., None] | None = None,
) -> Plan:
    """The plan of the model in `path`, whose shapes are fixed.

    `chosen` gives the choice that was measured for a kernel, None where the rule is to decide;
    `report` is told how far it is, as in `BuildJob`.

    Raises:
        UnplannedError: what none can be made of, by node.
    """
    import onnx

    with _blaming(path, cpu):
        return plan_of(onnx.load(str(path)), cpu, chosen, report)


def relax_of(
    path: Path,
    cpu: Cpu,
    chosen: Chosen | None = None,
    report: Callable[..., None] | None = None,
) -> Any:
    """The Relax module of the model in `path`, every operator a call of a scheduled kernel.

    `chosen` and `report` are as for `compile_model`; dimensions may be open.

    Raises:
        UnplannedError: what none can be made of, by node.
    """
    import onnx

    from infc.targets.tvm_compiler.importing.graph import import_model
    from infc.targets.tvm_compiler.scheduling.kernels import kernels

    with _blaming(path, cpu):
        return kernels(import_model(onnx.load(str(path)), cpu), cpu, chosen, report)


@contextlib.contextmanager
def _blaming(path: Path, cpu: Cpu) -> Iterator[None]:
    """Say which nodes of the model in `path` are to blame for what goes wrong."""
    from infc.targets.tvm_compiler.forms.plan import UnplannedError
    from infc.targets.tvm_compiler.importing.checking import blamed

    try:
        yield
    except Exception as error:
        rows = [f"`{r.node}` ({r.op_type}): {r.reason}" for r in blamed(path, cpu)]
        if not rows:
            raise
        raise UnplannedError("; ".join(rows)) from error


def plan_of(
    model: onnx.ModelProto,
    cpu: Cpu,
    chosen: Chosen | None = None,
    report: Callable[..., None] | None = None,
) -> Plan:
    """The plan of `model`.

    Raises:
        UnplannedError: a shape that depends on values, or control flow.
        RefusedError: nodes that cannot be converted.
    """
    import tvm
    from tvm.relax import transform

    from infc.targets.tvm_compiler.forms.plan import plan
    from infc.targets.tvm_compiler.importing.graph import import_model
    from infc.targets.tvm_compiler.scheduling.kernels import kernels

    module = kernels(import_model(model, cpu), cpu, chosen, report)
    with tvm.target.Target(cpu.target()):
        planned = tvm.transform.Sequential(
            [
                transform.ToNonDataflow(),
                transform.RemovePurityChecking(),
                transform.CallTIRRewrite(),
                transform.StaticPlanBlockMemory(),
            ]
        )(module)
    return plan(planned)
