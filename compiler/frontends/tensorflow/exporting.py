"""A program made ONNX: traced, frozen, and given to tf2onnx.

tf2onnx reports failure by logging: it writes a node that ONNX does not have, and goes on. Its
graph is therefore looked through, and every operator that was left over is named (E111).
Control flow is not lowered when the variables are frozen: tf2onnx knows recurrent layers by it.

Source: tf2onnx 1.17, `tfonnx.process_tf_graph`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx

from infc.diagnostics import InfcError, fail
from infc.frontends.findings import Findings, printable, quoted
from infc.frontends.onnx_context import subgraphs
from infc.frontends.tensorflow import complex_numbers, lifting, programs, states
from infc.frontends.tensorflow.interface import Exported

if TYPE_CHECKING:
    from infc.frontends.tensorflow.programs import Program

ATTEMPTS = 3
"""How often a graph is converted whose outputs lose their ranks."""
OPSET = 17
"""What all back ends take and tf2onnx writes well: 18 moves the axes of reductions to an input."""
CUT_OFF = "export the model without it, or cut it off: the part before or after it"
FAILED = "Failed to convert node"
RANDOM = (
    *("Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform"),
    "RandomUniformLike",
)


def export(program: Program, path: Path) -> Exported:
    """The ONNX model of `program`.

    Raises:
        InfcError: E111, for every operation that cannot be exported.
    """
    import tensorflow as tf

    with _blaming(path):
        function = programs.concrete(program)
        held = states.find(function, program, path)
        inputs = [t.name for t in function.inputs if t.dtype != tf.resource]
        inputs = inputs[: len(program.inputs)]
        outputs = [t.name for t in function.outputs]
        if held:
            lifted = lifting.lift(function, held, inputs, outputs, path)
            inputs, outputs = list(lifted.inputs), list(lifted.outputs)
            frozen = _optimized(lifted.definition, inputs, outputs)
        else:
            frozen = _frozen(function, inputs, outputs)
        graph, inputs, outputs = complex_numbers.split(frozen, inputs, outputs)
        _require_no_bfloat16(graph, path)  # with the functions in it made one graph
        # The bodies of loops and branches are imported into whatever graph is the default one.
        with graph.as_default():
            model = convert(path, lambda: _graph(graph, inputs, outputs))
    ports = (*program.inputs, *(state.port for state in held))
    names = (*program.outputs, *(state.output for state in held))
    return Exported(
        model,
        tuple(zip(inputs, ports, strict=True)),
        tuple(zip(outputs, names, strict=True)),
        (*program.notes, *states.note(held, program)),
    )


def _frozen(function: Any, inputs: list[str], outputs: list[str]) -> Any:
    from tf2onnx import tf_loader

    return tf_loader.from_function(function, inputs, outputs)


def _require_no_bfloat16(graph: Any, path: Path) -> None:
    """Refuse arithmetic in bfloat16, of which tf2onnx makes float16; E111."""
    import tensorflow as tf

    for op in graph.get_operations():
        if any(tensor.dtype.base_dtype == tf.bfloat16 for tensor in op.outputs):
            raise fail(
                "E111",
                f"`{path}` computes in bfloat16, which tf2onnx cannot write",
                where=f"{path.name}:{op.name} ({op.type})",
                help="save it with the policy `float32`, which has the same weights; `--precision "
                "bf16`\nthen makes it small again, where the target computes in it",
            )


def _optimized(definition: Any, inputs: list[str], outputs: list[str]) -> Any:
    """A frozen graph as tf2onnx wants it; what `tf_loader.from_function` ends with."""
    import tensorflow as tf
    from tf2onnx import tf_loader

    with tf.Graph().as_default(), tf.compat.v1.Session():
        tf.import_graph_def(definition, name="")
        return tf_loader.tf_optimize(inputs, outputs, definition)


def _graph(graph: Any, inputs: list[str], outputs: list[str]) -> Any:
    from tf2onnx.tfonnx import process_tf_graph

    return process_tf_graph(graph, opset=OPSET, input_names=inputs, output_names=outputs)


def convert(path: Path, process: Callable[[], Any]) -> Any:
    """Run `process`, which calls tf2onnx, and return its optimised graph as a model.

    Raises:
        InfcError: E111 for every operation that tf2onnx failed at.
    """
    from tf2onnx import optimizer

    from infc.frontends.tensorflow import operators

    operators.register()
    for _ in range(ATTEMPTS):
        with _listening() as failures, _blaming(path, failures):
            built = process()
            operators.settle_transposed(built)
            ranks = {name: _rank(built.get_shape(name)) for name in built.outputs}
            graph = optimizer.optimize_graph(built, catch_errors=True)
            model = graph.make_model("")
        _require_onnx(model, path)
        if all(_may_be(value, ranks.get(value.name)) for value in model.graph.output):
            break
    return model


def _rank(shape: Sequence[int] | None) -> int | None:
    return None if shape is None else len(shape)


def _may_be(value: Any, rank: int | None) -> bool:
    """Whether an output of the optimised graph has the rank that it had before.

    tf2onnx's optimiser goes through sets of names in the order of their hashes, and in one of some
    hundred orders drops a Squeeze behind a transposed convolution of one channel. A worker's hashes
    are the same every time; a second conversion names its nodes otherwise.
    """
    kind = value.type.tensor_type
    return rank is None or not kind.HasField("shape") or len(kind.shape.dim) == rank


class _Failures(logging.Handler):
    """The nodes that tf2onnx logs a failure of, with the reason."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.found: dict[str, str] = {}

    def emit(self, record: logging.LogRecord) -> None:
        if isinstance(record.msg, str) and record.msg.startswith(FAILED) and record.args:
            error = record.exc_info[1] if record.exc_info else ""
            self.found[str(record.args[0])] = printable(str(error).partition("\n")[0])  # type: ignore[index]


@contextmanager
def _listening() -> Iterator[dict[str, str]]:
    handler = _Failures()
    logger = logging.getLogger("tf2onnx")
    logger.addHandler(handler)
    try:
        yield handler.found
    finally:
        logger.removeHandler(handler)


@contextmanager
def _blaming(path: Path, failures: dict[str, str] | None = None) -> Iterator[None]:
    """Turn whatever an exporter raises into E111."""
    try:
        yield
    except (InfcError, MemoryError):
        raise
    except Exception as error:
        findings = Findings(path.name)
        for node, reason in (failures or {}).items():
            findings.add(
                "E111", f"tf2onnx cannot export {quoted(node)}: {reason}", where=node, help=CUT_OFF
            )
        findings.stop_here()
        lines = str(error).strip().splitlines() or [""]
        text = f"{type(error).__name__}: {lines[0][:300]}"
        raise fail("E111", f"`{path}` cannot be exported: {text}") from error


def _require_onnx(model: Any, path: Path) -> None:
    """Name every node that is not of ONNX: tf2onnx leaves what it does not know as it is."""
    findings = Findings(path.name)
    for node in _nodes(model.graph):
        if node.domain not in ("", "ai.onnx") or not onnx.defs.has(node.op_type, OPSET, ""):
            op = node.op_type
            findings.add(
                "E111",
                f"the operation {quoted(op)} has no counterpart in ONNX that tf2onnx knows",
                where=f"{node.name} ({op})",
                help=CUT_OFF,
            )
        elif node.op_type in RANDOM:
            findings.add(
                "E111",
                f"the model draws random numbers ({quoted(node.op_type)}): no two answers agree",
                where=f"{node.name} ({node.op_type})",
                help="make the noise an input, or export the model for inference",
            )
    findings.stop_here()


def _nodes(graph: Any) -> Iterator[Any]:
    for node in graph.node:
        yield node
        for inner in subgraphs(node):
            yield from _nodes(inner)
