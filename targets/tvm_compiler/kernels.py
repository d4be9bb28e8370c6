"""Relax to scheduled kernels: operators made loops, fused, and scheduled by rule."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from infc.targets.tvm_compiler.schedules import schedule

if TYPE_CHECKING:
    from infc.targets.tvm_compiler.cpus import Cpu


def kernels(module: Any, cpu: Cpu) -> Any:
    """Return `module` with every operator as a call of a scheduled kernel."""
    import tvm
    from tvm.relax import transform

    target = tvm.target.Target(cpu.target())
    with target, tvm.transform.PassContext(opt_level=3):
        fused = tvm.transform.Sequential(
            [
                transform.DecomposeOpsForInference(),
                transform.CanonicalizeBindings(),
                transform.LegalizeOps(),
                transform.AnnotateTIROpPattern(),
                transform.FoldConstant(),
                transform.FuseOps(),
                transform.FuseTIR(),
                transform.DeadCodeElimination(),
            ]
        )(module)
    rows = {
        name: schedule(func, cpu) if isinstance(func, tvm.tirx.PrimFunc) else func
        for name, func in fused.functions.items()
    }
    return tvm.IRModule(rows, attrs=fused.attrs)
