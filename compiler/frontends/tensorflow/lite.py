"""TensorFlow Lite files: read by tf2onnx, and run by TensorFlow's interpreter for the reference.

Inputs and outputs have the names of the file's signature, where it has one, or else of its tensors.
The interpreter runs its own kernels on one thread, without the delegate that would compute floats
in another order.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from infc.diagnostics import InfcError, fail
from infc.frontends.findings import printable
from infc.frontends.tensorflow.interface import Exported
from infc.frontends.tensorflow.programs import Port, port, unique

if TYPE_CHECKING:
    from infc.targets import Runner, Tensors

SAMPLE_DIM = 64
"""What a dimension of unknown size is tried at, where one is too small."""


def export(path: Path, signature: str = "") -> Exported:
    """The ONNX model of a file, whose first graph tf2onnx reads: `signature` has to be of that.

    Raises:
        InfcError: E108 for inputs that are no numbers, E110 for another signature, E111 for
            operations that cannot be exported, E114 for a file that the interpreter refuses.
    """
    from tf2onnx.tfonnx import process_tf_graph

    from infc.frontends.tensorflow import exporting

    interpreter = _open(path)
    _require_first(interpreter, signature, path)
    inputs, outputs = _inputs(interpreter), _outputs(interpreter)
    _require_8_bits(interpreter, path)
    model = exporting.convert(
        path, lambda: process_tf_graph(None, opset=exporting.OPSET, tflite_path=str(path))
    )
    return Exported(
        model,
        tuple((row["name"], p) for row, p in inputs),
        tuple((row["name"], name) for row, name in outputs),
    )


def _require_first(interpreter: Any, asked: str, path: Path) -> None:
    """Refuse a signature that is not of the file's first graph, and a choice not made; E110."""
    names = list(interpreter._get_full_signature_list())
    first = [n for n in names if interpreter._interpreter.GetSubgraphIndexFromSignature(n) == 0]
    if asked in first or (not asked and first == names):
        return
    listed = ", ".join(f"`{name}`" for name in names) or "none"
    raise fail(
        "E110",
        f"`{path}` has several signatures: {listed}; only that of its first graph can be read"
        if asked in names or not asked
        else f"`{path}` has no signature `{asked}`",
        help=f"take that with `--signature {first[0]}`, or convert another one alone: "
        "`signature_keys`\nof TFLiteConverter.from_saved_model"
        if first and (asked in names or not asked)
        else f"its signatures: {listed}",
    )


def _require_8_bits(interpreter: Any, path: Path) -> None:
    """Refuse activations in 16 bits: `QuantizeLinear` has them from opset 21 on; E111."""
    rows = interpreter.get_tensor_details()
    wide = [r for r in rows if r["dtype"].__name__ == "int16" and r["quantization"][0]]
    if wide:
        raise fail(
            "E111",
            f"`{path}` is quantised to 16 bits ({len(wide)} tensors): no back end computes in them",
            where=f"{path.name}:{wide[0]['name']}",
            help="convert it with 8-bit activations, or without quantisation and use "
            "`--precision int8`",
        )


def runner(path: Path) -> Runner:
    """Return a function that runs the file, resized to what it is fed."""
    interpreter = _open(path)
    inputs, outputs = _inputs(interpreter), _outputs(interpreter)

    def run(feeds: Tensors) -> dict[str, Any]:
        for row, p in inputs:
            interpreter.resize_tensor_input(row["index"], feeds[p.name].shape)
        interpreter.allocate_tensors()
        for row, p in inputs:
            interpreter.set_tensor(row["index"], feeds[p.name])
        interpreter.invoke()
        return {name: interpreter.get_tensor(row["index"]) for row, name in outputs}

    return run


def _open(path: Path) -> Any:
    import tensorflow as tf

    kernels = tf.lite.experimental.OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    try:
        interpreter = tf.lite.Interpreter(
            model_content=path.read_bytes(), num_threads=1, experimental_op_resolver_type=kernels
        )
        _prepare(interpreter)
    except (ValueError, RuntimeError) as error:
        text = printable(str(error).strip().partition("\n")[0])
        raise _refused(path, text) from error
    return interpreter


def _prepare(interpreter: Any) -> None:
    """Lay the tensors out, which finds what the interpreter cannot run.

    Sizes that the file leaves unknown are one in it, which may be less than a window.
    """
    try:
        interpreter.allocate_tensors()
    except (ValueError, RuntimeError):
        rows = [
            r
            for r in interpreter.get_input_details()
            if min(r["shape_signature"][1:], default=0) < 0
        ]
        if not rows:
            raise
        for row in rows:
            batch, *sizes = map(int, row["shape_signature"])
            known = [max(batch, 1), *(SAMPLE_DIM if size < 0 else size for size in sizes)]
            interpreter.resize_tensor_input(row["index"], known)
        interpreter.allocate_tensors()


def _refused(path: Path, text: str) -> InfcError:
    return fail(
        "E114",
        f"TensorFlow Lite cannot load `{path}`: {text}",
        help="it is damaged, or needs operators that TensorFlow Lite does not have itself",
    )


def _inputs(interpreter: Any) -> list[tuple[dict[str, Any], Port]]:
    """The rows of the interpreter's inputs, in order, and what they are called."""
    rows = interpreter.get_input_details()
    names = _names(interpreter, rows, "inputs")
    return [(row, _port(name, row)) for row, name in zip(rows, names, strict=True)]


def _outputs(interpreter: Any) -> list[tuple[dict[str, Any], str]]:
    rows = interpreter.get_output_details()
    return list(zip(rows, _names(interpreter, rows, "outputs"), strict=True))


def _port(name: str, row: dict[str, Any]) -> Port:
    import numpy as np

    sizes = [None if size < 0 else int(size) for size in row["shape_signature"]]
    return port(name, tuple(sizes), np.dtype(row["dtype"]).name)


def _names(interpreter: Any, rows: list[dict[str, Any]], side: str) -> tuple[str, ...]:
    """The keys of the only signature, or the names of the tensors."""
    signatures = interpreter._get_full_signature_list()
    if len(signatures) == 1:
        (signature,) = signatures.values()
        keys = {index: key for key, index in signature[side].items()}
        if {row["index"] for row in rows} <= set(keys):
            return unique([keys[row["index"]] for row in rows])
    return unique([row["name"] for row in rows])
