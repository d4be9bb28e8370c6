"""A Relax function as a static plan: which kernel runs on which memory, in what order.

Nothing is decided when the model runs. Intermediate tensors have their places in one arena, where
those that do not live at the same time share memory (Relax's StaticPlanBlockMemory); what a kernel
needs beside its operands, a padded input for one, lies behind them in the same arena.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

ALIGNMENT = 64
"""Bytes that tensors are aligned to: a line of the cache, and the widest vector there is."""


class UnplannedError(Exception):
    """What the plan cannot hold: a dimension that is not fixed, or a call that is no kernel."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """A piece of memory: `place` is `input`, `output`, `constant` or `arena`.

    `at` is the number of the input, output or constant, or the offset in the arena, in bytes.
    """

    place: str
    at: int
    shape: tuple[int, ...]
    dtype: str

    @property
    def bytes(self) -> int:
        """The size."""
        return size_of(self.shape, self.dtype)


@dataclass(frozen=True, slots=True)
class Call:
    """A call of `kernel` with tensors, by their numbers."""

    kernel: str
    operands: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Copy:
    """An output that is an input, a constant or another output as well."""

    source: int
    output: int


@dataclass(frozen=True, slots=True)
class Plan:
    """Tensors, and the calls on them in order; `kernels` are TIR functions by name."""

    tensors: tuple[Tensor, ...]
    calls: tuple[Call, ...]
    copies: tuple[Copy, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    constants: tuple[np.ndarray[Any, Any], ...]
    kernels: Mapping[str, Any]
    arena_bytes: int


def size_of(shape: Sequence[int], dtype: str) -> int:
    """Bytes of a tensor."""
    import math

    import ml_dtypes  # noqa: F401  (numpy learns bfloat16 by it)
    import numpy as np

    return math.prod(shape) * np.dtype(dtype).itemsize


def aligned(size: int) -> int:
    """`size` rounded up to the alignment."""
    return -(-size // ALIGNMENT) * ALIGNMENT


def plan(module: Any) -> Plan:
    """The plan of `module`, a Relax module after memory planning.

    Raises:
        UnplannedError: it has no static plan.
    """
    return _Planner(module).plan()


class _Planner:
    def __init__(self, module: Any) -> None:
        self._module = module
        self._tensors: list[Tensor] = []
        self._constants: list[Any] = []
        self._known: dict[Any, Any] = {}
        self._starts: list[int] = []
        self._arena = 0
        self._calls: list[tuple[str, tuple[int, ...]]] = []

    def plan(self) -> Plan:
        main = self._module["main"]
        inputs = []
        for i, parameter in enumerate(main.params):
            inputs.append(self._tensor("input", i, parameter))
            self._known[parameter] = inputs[-1]
        for block in main.body.blocks:
            for binding in block.bindings:
                self._bind(binding.var, binding.value)
        result = self._value(main.body.body)
        answers = result if isinstance(result, list) else [result]
        outputs, copies = self._outputs(answers)
        kernels, calls, arena = self._kernels()
        return Plan(
            tuple(self._tensors),
            tuple(calls),
            tuple(copies),
            tuple(inputs),
            tuple(outputs),
            tuple(self._constants),
            kernels,
            arena,
        )

    def _tensor(self, place: str, at: int, like: Any) -> int:
        shape, dtype = _type_of(like)
        return self._add(Tensor(place, at, shape, dtype))

    def _add(self, tensor: Tensor) -> int:
        self._tensors.append(tensor)
        return len(self._tensors) - 1

    def _bind(self, var: Any, value: Any) -> None:
        from tvm import ir, relax

        if not isinstance(value, relax.Call):
            self._known[var] = self._value(value)
            return
        name = value.op.name if isinstance(value.op, ir.Op) else ""
        if name == "relax.memory.alloc_storage":
            self._known[var] = len(self._starts)
            self._starts.append(self._arena)
            self._arena += aligned(_number(value.args[0].values[0]))
        elif name == "relax.memory.alloc_tensor":
            start = self._starts[self._known[value.args[0]]]
            self._known[var] = self._tensor("arena", start + int(value.args[1].value), var)
        elif name == "relax.builtin.alloc_tensor":
            # Not planned: an output, until it turns out to be none.
            self._known[var] = self._tensor("output", -1, var)
        elif name in ("relax.memory.kill_tensor", "relax.memory.kill_storage"):
            return
        elif isinstance(value.op, ir.GlobalVar):
            operands = tuple(self._value(a) for a in value.args)
            self._calls.append((value.op.name_hint, operands))
        else:
            raise UnplannedError(f"`{name or value.op}` is no kernel")

    def _value(self, expression: Any) -> Any:
        from tvm import ir, relax

        if isinstance(expression, relax.Tuple):
            return [self._value(field) for field in expression.fields]
        if isinstance(expression, relax.TupleGetItem):
            return self._value(expression.tuple_value)[expression.index]
        if isinstance(expression, ir.expr.GenericConst):
            array = expression.value.numpy()
            self._constants.append(array)
            at = len(self._constants) - 1
            return self._add(Tensor("constant", at, tuple(array.shape), array.dtype.name))
        if expression in self._known:
            return self._known[expression]
        raise UnplannedError(f"a value that is no tensor: {type(expression).__name__}")

    def _outputs(self, answers: Sequence[int]) -> tuple[list[int], list[Copy]]:
        """Number the outputs; tensors that were not planned and are none go to the arena."""
        outputs: list[int] = []
        copies: list[Copy] = []
        for i, number in enumerate(answers):
            tensor = self._tensors[number]
            if tensor.place == "output" and tensor.at < 0:
                self._tensors[number] = Tensor("output", i, tensor.shape, tensor.dtype)
                outputs.append(number)
            else:
                copy = self._add(Tensor("output", i, tensor.shape, tensor.dtype))
                copies.append(Copy(number, copy))
                outputs.append(copy)
        for number, tensor in enumerate(self._tensors):
            if tensor.place == "output" and tensor.at < 0:
                self._tensors[number] = Tensor("arena", self._arena, tensor.shape, tensor.dtype)
                self._arena += aligned(tensor.bytes)
        return outputs, copies

    def _kernels(self) -> tuple[dict[str, Any], list[Call], int]:
        """The kernels with their own buffers as operands, and the calls that hand them over."""
        kernels: dict[str, Any] = {}
        wanted: dict[str, list[tuple[tuple[int, ...], str]]] = {}
        for name, _ in self._calls:
            if name not in kernels:
                kernels[name], wanted[name] = with_workspace(self._module[name])
        shared: dict[tuple[str, int], int] = {}
        calls, most = [], self._arena
        for name, operands in self._calls:
            at, extra = self._arena, []
            for i, (shape, dtype) in enumerate(wanted[name]):
                if (name, i) not in shared:
                    shared[name, i] = self._add(Tensor("arena", at, shape, dtype))
                extra.append(shared[name, i])
                at += aligned(size_of(shape, dtype))
            most = max(most, at)
            calls.append(Call(name, (*operands, *extra)))
        return kernels, calls, most


def with_workspace(func: Any) -> tuple[Any, list[tuple[tuple[int, ...], str]]]:
    """`func` with the buffers that it allocates for itself as further parameters; their types.

    A buffer inside a loop is small and stays: it becomes registers, or lies on the stack.
    """
    import tvm
    from tvm.s_tir import SBlock, SBlockRealize
    from tvm.s_tir.transform import LowerInitBlock, PlanAndUpdateBufferAllocationLocation

    located = tvm.transform.Sequential([LowerInitBlock(), PlanAndUpdateBufferAllocationLocation()])
    func = located(tvm.IRModule({"main": func}))["main"]
    realize = func.body
    root = realize.block
    if not root.alloc_buffers:
        return func, []
    block = SBlock(
        root.iter_vars,
        root.reads,
        root.writes,
        root.name_hint,
        root.body,
        root.init,
        [],
        root.match_buffers,
        root.annotations,
    )
    body = SBlockRealize(realize.iter_values, realize.predicate, block)
    parameters = [*func.params, *root.alloc_buffers]
    types = [_buffer_type(buffer) for buffer in root.alloc_buffers]
    return tvm.tirx.PrimFunc(parameters, body, func.ret_type, func.attrs), types


def _buffer_type(buffer: Any) -> tuple[tuple[int, ...], str]:
    return tuple(_number(n) for n in buffer.shape), str(buffer.dtype)


def _type_of(expression: Any) -> tuple[tuple[int, ...], str]:
    kind = expression.ty
    if getattr(kind, "shape", None) is None:
        raise UnplannedError("a tensor without a shape")
    return tuple(_number(n) for n in kind.shape.values), str(kind.dtype.dtype)


def _number(value: Any) -> int:
    try:
        return int(value)
    except (TypeError, ValueError) as error:
        raise UnplannedError(f"the dimension `{value}` is not fixed") from error
