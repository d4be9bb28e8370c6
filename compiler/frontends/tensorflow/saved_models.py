"""SavedModels: one signature of one, as a function.

`tf.saved_model.load` reads what TensorFlow 2 wrote and most of what TensorFlow 1 did. What it
refuses is read the old way, in a session, and frozen there.

Source: TensorFlow 2.21, `tensorflow/python/saved_model`, `saved_model.proto`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infc.diagnostics import InfcError, did_you_mean, fail
from infc.frontends.findings import printable
from infc.frontends.tensorflow import frozen_graphs, graphs
from infc.frontends.tensorflow.programs import Program, port

if TYPE_CHECKING:
    from infc.frontends.tensorflow import Wanted

DEFAULT = "serving_default"
SERVE = "serve"
MAX_FILE_BYTES = 2**31 - 1


def load(wanted: Wanted) -> Program:
    """The signature of the SavedModel in a folder that the user chose, or the only one.

    Raises:
        InfcError: E108, E110 for a signature that is not there, E111 for operators of third
            parties, E113 for what reaches outside, E114 for what cannot be loaded, E115.
    """
    import tensorflow as tf

    folder = wanted.path if wanted.path.is_dir() else wanted.path.parent
    meta = _meta_graph(folder)
    name = _signature(meta, wanted.options.signature, folder)
    definition = meta.graph_def
    rows = list(graphs.nodes(definition))
    graphs.require_harmless(rows, folder, allow=wanted.options.allow_pickle)
    own = graphs.own_functions(definition)
    graphs.require_known((row for row in rows if row.op not in own), folder)
    _require_numbers(meta.signature_def[name])
    try:
        loaded = tf.saved_model.load(str(folder), tags=list(meta.meta_info_def.tags))
        function = loaded.signatures[name]
        return _program(function, wanted, loaded)
    except (MemoryError, InfcError):
        raise
    except Exception as error:
        return _from_session(wanted, folder, meta, name, error)


def _program(function: Any, wanted: Wanted, loaded: Any) -> Program:
    given = {spec.name: [dim.fixed for dim in spec.dims] for spec in wanted.inputs}
    specs = function.structured_input_signature[1]
    ports = tuple(port(n, s.shape, s.dtype, given.get(n)) for n, s in specs.items())
    outputs = tuple(function.structured_outputs)

    def call(tensors: Sequence[Any]) -> list[Any]:
        named = {p.name: tensor for p, tensor in zip(ports, tensors, strict=True)}
        answers = function(**named)
        return [answers[name] for name in outputs]

    return Program(ports, outputs, call, loaded)


def _meta_graph(folder: Path) -> Any:
    """The graph that is for serving, or the first; E114 where the file does not parse."""
    from google.protobuf import text_format
    from google.protobuf.message import DecodeError
    from tensorflow.core.protobuf import saved_model_pb2

    model = saved_model_pb2.SavedModel()
    file = folder / "saved_model.pb"
    try:
        if file.is_file():
            if file.stat().st_size > MAX_FILE_BYTES:
                raise fail("E114", f"`{file}` is larger than a protobuf can be")
            model.ParseFromString(file.read_bytes())
        else:
            file = folder / "saved_model.pbtxt"
            text_format.Parse(file.read_text("utf-8"), model)
    except (DecodeError, OSError, UnicodeDecodeError, text_format.ParseError) as error:
        raise fail(
            "E114",
            f"`{file}` does not parse as a SavedModel",
            help="it is truncated or damaged: download or export it again",
        ) from error
    if not model.meta_graphs:
        raise fail("E114", f"`{file}` holds no graph", help="it is damaged: export it again")
    serving = [m for m in model.meta_graphs if SERVE in m.meta_info_def.tags]
    return serving[0] if serving else model.meta_graphs[0]


def _signature(meta: Any, asked: str, folder: Path) -> str:
    """The name of the signature to take.

    Raises:
        InfcError: E110 where it is not there or not said which, E114 where there is none.
    """
    names = sorted(n for n, s in meta.signature_def.items() if s.outputs and n[:2] != "__")
    listed = ", ".join(f"`{name}`" for name in names)
    if not names:
        raise fail(
            "E114",
            f"`{folder}` has no signature to call",
            help="say which function answers when it is saved: tf.saved_model.save(model, FOLDER, "
            "signatures=\nmodel.__call__.get_concrete_function(tf.TensorSpec(SHAPE, DTYPE)))",
        )
    if asked:
        if asked not in names:
            help = f"{did_you_mean(asked, names)}it has {listed}"
            raise fail("E110", f"`{folder}` has no signature `{asked}`", help=help)
        return asked
    if DEFAULT in names or len(names) == 1:
        return DEFAULT if DEFAULT in names else names[0]
    raise fail(
        "E110",
        f"`{folder}` has several signatures: {listed}",
        help=f"choose one, for example `--signature {names[0]}`",
    )


def _require_numbers(signature: Any) -> None:
    """Check the types of a signature before anything is loaded; E108."""
    import tensorflow as tf

    for name, info in signature.inputs.items():
        if info.WhichOneof("encoding") in ("name", None):
            port(name, (), tf.dtypes.as_dtype(info.dtype or 1))
        else:
            kind = info.WhichOneof("encoding").replace("_", " ")
            help = "export the model with dense inputs"
            raise fail("E108", f"input `{name}` is no dense tensor ({kind})", help=help)


def _from_session(wanted: Wanted, folder: Path, meta: Any, name: str, error: Exception) -> Program:
    """The model as TensorFlow 1 loads it, frozen; E114 with the first `error` where it cannot."""
    import tensorflow as tf

    signature = meta.signature_def[name]
    outputs = {key: info.name for key, info in signature.outputs.items()}
    inputs = {key: info.name for key, info in signature.inputs.items()}
    v1 = tf.compat.v1
    try:
        with tf.Graph().as_default(), v1.Session() as session:
            v1.saved_model.loader.load(session, list(meta.meta_info_def.tags), str(folder))
            kept = [tensor.partition(":")[0] for tensor in outputs.values()]
            definition = session.graph.as_graph_def()
            frozen = v1.graph_util.convert_variables_to_constants(session, definition, kept)
    except MemoryError:
        raise
    except Exception as second:
        lines = [printable(str(e).strip().partition("\n")[0]) for e in (error, second)]
        raise fail(
            "E114",
            f"TensorFlow cannot load `{folder}`: {type(error).__name__}: {lines[0]}",
            notes=(f"read as TensorFlow 1 does: {type(second).__name__}: {lines[1]}",),
            help="export it again with a current TensorFlow, or from the one that wrote it as a "
            "frozen graph",
        ) from error
    return frozen_graphs.program(frozen, inputs, outputs, wanted, folder)
