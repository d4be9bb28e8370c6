"""Relax to scheduled kernels: operators made loops, fused, and scheduled by rule or by record."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from infc.targets.tvm_compiler.importing.convolution import ATTRIBUTE, with_rows
from infc.targets.tvm_compiler.scheduling.blocks import weights_of
from infc.targets.tvm_compiler.scheduling.choices import (
    Choice,
    Extents,
    extents_of,
    main_block,
    rule,
)
from infc.targets.tvm_compiler.scheduling.packing import is_kernel_call, with_packed
from infc.targets.tvm_compiler.scheduling.schedules import schedule

if TYPE_CHECKING:
    from infc.targets.tvm_compiler.cpus import Cpu

UNFIT = (TypeError, ValueError, RuntimeError, IndexError)
"""What TVM raises where a schedule does not fit a kernel; its own errors are among these."""


@dataclass(frozen=True, slots=True)
class Kernel:
    """A kernel that is not scheduled.

    `func` is its TIR function, with no rows beyond those of its output; `groups` the module before
    operators were put together, which a convolution of more rows is made from. `constants` are
    the numbers of the parameters that are constants wherever it is called.
    """

    name: str
    func: Any
    groups: Any
    constants: frozenset[int] = frozenset()

    @property
    def key(self) -> str:
        """What it computes, on which shapes and types: 16 hexadecimal digits.

        Names have no part in it, nor has how it is scheduled.
        """
        import tvm_ffi

        bare = self.func.without_attr("global_symbol")
        return f"{tvm_ffi.structural_hash(bare) & 0xFFFFFFFFFFFFFFFF:016x}"

    def extents(self) -> Extents:
        """The sizes of its main block."""
        return extents_of(self.func, self.constants)

    def rule(self, cpu: Cpu) -> Choice:
        """The choice that is made without measuring."""
        return rule(self.func, cpu, self.constants)

    def weights(self) -> int:
        """Which parameter the weights of its main block are."""
        import tvm
        from tvm.s_tir import Schedule

        sch = Schedule(tvm.IRModule({"main": self.func}))
        found = weights_of(sch.get(main_block(sch)))
        assert found is not None
        return next(i for i, p in enumerate(self.func.params) if p.same_as(found[1]))

    def scheduled(self, cpu: Cpu, choice: Choice) -> Any:
        """The TIR function, computed as chosen.

        Raises:
            ScheduleError: what is chosen does not fit it.
        """
        return schedule(self._with_rows(choice.rows), cpu, choice)

    def _with_rows(self, rows: int) -> Any:
        """The TIR function, its convolution up to a multiple of `rows`."""
        if rows == 1 or self.name not in {v.name_hint for v in self.groups.get_global_vars()}:
            return self.func
        called = _called(self.groups[self.name])
        if not called:
            return _taller(self.func, rows)
        if not any(_is_conv(self.groups[v]) for v in called):
            return self.func
        functions = {v: _taller(self.groups[v], rows) for v in called}
        return _fused(self.groups.get_global_var(self.name), self.groups[self.name], functions)


def _is_conv(func: Any) -> bool:
    return ATTRIBUTE in (func.attrs or {})


def _taller(func: Any, rows: int) -> Any:
    return with_rows(func, rows) if _is_conv(func) else func


def _called(func: Any) -> list[Any]:
    """The global variables that a group of operators calls; none where it is a TIR function."""
    import tvm
    from tvm import relax

    found: list[Any] = []

    def visit(expression: Any) -> None:
        if isinstance(expression, tvm.ir.GlobalVar):
            found.append(expression)

    if isinstance(func, relax.Function):
        relax.analysis.post_order_visit(func, visit)
    return found


def _fused(name: Any, group: Any, functions: dict[Any, Any]) -> Any:
    """The TIR function of one group, whose operators are `functions`."""
    import tvm
    from tvm import relax

    builder = relax.BlockBuilder(tvm.IRModule({name: group, **functions}))
    operands = [relax.Var(f"p{i}", p.ty) for i, p in enumerate(group.params)]
    # What nobody calls would not be fused.
    with builder.function("main", operands):
        with builder.dataflow():
            answer = builder.emit_output(name(*operands))
        builder.emit_func_output(answer)
    return relax.transform.FuseTIR()(builder.finalize())[name.name_hint]


@dataclass(frozen=True, slots=True)
class Fused:
    """A Relax module whose operators are put together: calls of kernels, not scheduled yet."""

    module: Any
    groups: Any

    def kernels(self) -> Iterator[Kernel]:
        """All of them, in the order of their names."""
        import tvm

        rows = {v.name_hint: f for v, f in self.module.functions.items()}
        constants = self._constants()
        for name, func in sorted(rows.items()):
            if isinstance(func, tvm.tirx.PrimFunc):
                yield Kernel(name, func, self.groups, constants.get(name, frozenset()))

    def calls(self) -> dict[str, int]:
        """How often `main` calls each kernel."""
        return dict(Counter(call.args[0].name_hint for call in self._calls()))

    def _calls(self) -> list[Any]:
        from tvm import relax

        found: list[Any] = []

        def visit(expression: Any) -> None:
            if is_kernel_call(expression):
                found.append(expression)

        relax.analysis.post_order_visit(self.module["main"], visit)
        return found

    def _constants(self) -> dict[str, frozenset[int]]:
        """By kernel, the parameters that are constants in every call of it."""
        from tvm import ir

        found: dict[str, frozenset[int]] = {}
        for call in self._calls():
            name = call.args[0].name_hint
            operands = enumerate(call.args[1].fields)
            here = frozenset(i for i, a in operands if isinstance(a, ir.expr.GenericConst))
            found[name] = found.get(name, here) & here
        return found


def fuse(module: Any, cpu: Cpu) -> Fused:
    """Make operators loops, and put together what is computed together."""
    import tvm
    from tvm.relax import transform

    with tvm.target.Target(cpu.target()), tvm.transform.PassContext(opt_level=3):
        groups = tvm.transform.Sequential(
            [
                transform.DecomposeOpsForInference(),
                transform.CanonicalizeBindings(),
                transform.LegalizeOps(),
                transform.AnnotateTIROpPattern(),
                transform.FoldConstant(),
                transform.FuseOps(),
            ]
        )(module)
        whole = tvm.transform.Sequential([transform.FuseTIR(), transform.DeadCodeElimination()])
        return Fused(whole(groups), groups)


def scheduled(kernel: Kernel, cpu: Cpu, choice: Choice | None = None) -> tuple[Any, Choice | None]:
    """`kernel` as chosen, or else by rule, and how that is.

    Where neither fits it is left as it is and runs on one thread, and the log says so. A kernel
    that is written as statements (importing/serial_converters.py) has no schedule.
    """
    from tvm.s_tir import SBlockRealize

    body = kernel.func.body
    if not isinstance(body, SBlockRealize) or body.block.name_hint != "root":
        return kernel.func.with_attr("tirx.is_scheduled", True), None
    for given in (choice, None):
        how = given if given is not None else kernel.rule(cpu)
        try:
            return kernel.scheduled(cpu, how), how
        except UNFIT as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            named = f"{kernel.name} cannot be computed as {how}"
            print(f"{named}: {reason}", file=sys.stderr)  # noqa: T201
    return kernel.func.with_attr("tirx.is_scheduled", True), None


Chosen = Callable[[Kernel], Choice | None]
"""The choice that was measured for a kernel; None where the rule is to decide."""


def kernels(
    module: Any,
    cpu: Cpu,
    chosen: Chosen | None = None,
    report: Callable[..., None] | None = None,
) -> Any:
    """Return `module` with every operator as a call of a scheduled kernel.

    `report` is told how far that is, as in `BuildJob`.
    """
    import tvm

    fused = fuse(module, cpu)
    functions = dict(fused.module.functions.items())
    packing = {}
    found = list(fused.kernels())
    for done, kernel in enumerate(found):
        if report is not None:
            report(phase="scheduling kernels", done=done, total=len(found))
        choice = chosen(kernel) if chosen is not None else None
        func, how = scheduled(kernel, cpu, choice)
        functions[fused.module.get_global_var(kernel.name)] = func
        if how is not None and how.packed:
            packing[kernel.name] = (kernel.weights(), how.columns)
    whole = tvm.IRModule(functions, attrs=fused.module.attrs)
    return with_packed(whole, packing) if packing else whole
