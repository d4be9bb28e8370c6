"""Keras files, `.keras` and `.h5`: a model, with nothing of the file's executed.

The configuration, which is JSON, is read and judged (`keras_configs`) before Keras sees it, and
Keras's own safe mode stays on. Keras goes by the ends of names; what it is given is a copy, in the
worker's scratch folder, with the configuration that was judged.

Custom layers, and the model that a file of weights alone belongs to, come from the user's own code:
`--model file.py:Name`.

Source: Keras 3.15, `keras.saving`, `legacy_h5_format.load_model_from_hdf5`.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from infc import user_code
from infc.diagnostics import Diagnostic, InfcError, Severity, fail
from infc.frontends.containers import archives
from infc.frontends.findings import printable
from infc.frontends.sniff import Kind
from infc.frontends.tensorflow import keras_configs
from infc.frontends.tensorflow.programs import Program, port, unique

if TYPE_CHECKING:
    from infc.frontends.tensorflow import Wanted

MAX_CONFIG_BYTES = 64 << 20
CONFIG = "config.json"
_WIDENED = (
    Diagnostic(
        "E111",
        "the model computes in bfloat16; it is imported in float32, which holds the same weights",
        help="`--precision bf16` computes in it again, where the target does",
        severity=Severity.NOTE,
    ),
)


class Copy(NamedTuple):
    """A Keras file under a name that Keras takes.

    `has_config` says whether it holds more than weights, `widened` whether it computed in bfloat16.
    """

    path: Path
    has_config: bool
    widened: bool


def load(wanted: Wanted) -> Program:
    """The model in a Keras file.

    Raises:
        InfcError: E108 for inputs that are no numbers, E113 for a `Lambda`, E114 for what Keras
            cannot load, E115 for a model that was never built, E116 and E117 for a bad archive.
    """
    theirs = _user_objects(wanted)
    with _copied(wanted, theirs) as copy:
        read = _load if copy.has_config else _with_weights
        model = read(wanted, copy.path, theirs)
    return replace(program_of(model, wanted.path), notes=_WIDENED if copy.widened else ())


def program_of(model: Any, path: Path) -> Program:
    """The inference of a Keras `model`: `training=False`, names as Keras has them."""
    import keras

    if not getattr(model, "inputs", None) or not getattr(model, "outputs", None):
        raise fail(
            "E115",
            f"the model in `{path}` was saved before it was built: its inputs have no shape",
            help="call it once before it is saved, or give its first layer an `Input(shape)`",
        )
    inputs = model.inputs
    names = _keys(model, "input") or unique([value.name for value in inputs])
    ports = tuple(port(n, tuple(v.shape), v.dtype) for n, v in zip(names, inputs, strict=True))

    def call(tensors: Any) -> list[Any]:
        packed = tensors[0]
        if not isinstance(model, keras.Sequential):
            packed = keras.tree.pack_sequence_as(model.input, list(tensors))
        return list(keras.tree.flatten(model(packed, training=False)))

    return Program(ports, _output_names(model), call, model)


def _keys(model: Any, side: str) -> tuple[str, ...]:
    """The keys, where a model takes or gives a dictionary: what its user says."""
    import keras

    structure = getattr(model, side, None) if not isinstance(model, keras.Sequential) else None
    if not isinstance(structure, dict):
        return ()
    paths = [path for path, _ in keras.tree.flatten_with_path(structure)]
    return unique([".".join(map(str, path)) for path in paths])


def _output_names(model: Any) -> tuple[str, ...]:
    """The keys of a dictionary, or the names of the layers."""
    outputs = model.outputs
    names = list(getattr(model, "output_names", None) or ())
    if len(names) != len(outputs):
        names = [value._keras_history.operation.name for value in outputs]
    return _keys(model, "output") or unique(names)


def _load(wanted: Wanted, copy: Path, theirs: dict[str, Any]) -> Any:
    import keras

    safe = not wanted.options.allow_pickle
    try:
        return keras.saving.load_model(copy, theirs, compile=False, safe_mode=safe)
    except MemoryError:
        raise
    except Exception as error:
        raise _refused(wanted, error) from error


def _with_weights(wanted: Wanted, copy: Path, theirs: dict[str, Any]) -> Any:
    """The user's model with the weights of a file that holds nothing else."""
    name = wanted.options.model
    if not name:
        raise fail(
            "E114",
            f"`{wanted.path}` holds weights only, and no model that they belong to",
            help="name the code that makes the model, `--model file.py:make_model`, or save the "
            "whole model: `model.save('model.keras')`",
        )
    made = theirs[name.rpartition(":")[2]]
    try:
        model = made() if callable(made) and not hasattr(made, "weights") else made
        model.load_weights(copy)
    except MemoryError:
        raise
    except Exception as error:
        raise _refused(wanted, error) from error
    return model


def _refused(wanted: Wanted, error: Exception) -> InfcError:
    """E114 with what Keras says: its first lines, since the rest is the whole configuration."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if lines else type(error).__name__
    line = user_code.line_of(error)
    notes = tuple(printable(row) for row in lines[1:3]) if lines else ()
    return fail(
        "E114",
        f"Keras cannot load `{wanted.path}`: {text[:300]}",
        where=line if wanted.options.model else "",
        notes=notes,
        help="a file of Keras 2 may need Keras 2: load it there (`pip install tf_keras`) and\n"
        "`model.export('folder')` it as a SavedModel",
    )


def _user_objects(wanted: Wanted) -> dict[str, Any]:
    """The names of the module that `--model` names, for what Keras does not know; E114."""
    if not wanted.options.model:
        return {}
    reference = user_code.Reference.parse(wanted.options.model)
    assert reference is not None, "ImportOptions checks it"
    try:
        found = vars(user_code.load_module(reference, wanted.home))
    except Exception as error:
        raise fail(
            "E114",
            f"`{wanted.options.model}` cannot be loaded: {type(error).__name__}: {error}",
            where=user_code.line_of(error),
        ) from error
    if reference.name not in found:
        raise fail("E114", f"`{reference.module}` has no `{reference.name}`")
    return {name: value for name, value in found.items() if not name.startswith("_")}


@contextmanager
def _copied(wanted: Wanted, theirs: dict[str, Any]) -> Iterator[Copy]:
    """A copy, as long as it lasts."""
    with tempfile.TemporaryDirectory(dir=Path.cwd()) as folder:
        if wanted.kind is Kind.KERAS:
            copy = Path(folder) / "model.keras"
            yield Copy(copy, True, _copy_archive(wanted, copy, theirs))
        else:
            yield _copy_hdf5(wanted, Path(folder), theirs)


def _copy_archive(wanted: Wanted, copy: Path, theirs: dict[str, Any]) -> bool:
    """Write `copy`; whether it was widened."""
    with archives.open_sane(wanted.path) as archive:
        if CONFIG not in archive.names:
            raise archives.damaged(str(wanted.path), f"it has no `{CONFIG}`")
        before = archive.read(CONFIG, MAX_CONFIG_BYTES)
        after, widened = _judged(wanted, before, theirs)
        if after == before:
            shutil.copyfile(wanted.path, copy)
            return widened
        with zipfile.ZipFile(copy, "w") as out:
            for name in archive.names:
                with archive.open(name) as source, out.open(name, "w", force_zip64=True) as target:
                    if name == CONFIG:
                        target.write(after)
                    else:
                        shutil.copyfileobj(source, target)
    return widened


def _copy_hdf5(wanted: Wanted, folder: Path, theirs: dict[str, Any]) -> Copy:
    import h5py

    widened = False
    try:
        with h5py.File(BytesIO(wanted.path.read_bytes()), "r+") as file:
            text = file.attrs.get("model_config")
            copy = folder / ("model.h5" if text is not None else "model.weights.h5")
            if text is None and "layer_names" in file.attrs:
                copy = folder / "weights.h5"  # as Keras 2 wrote them
            if text is not None:
                before = text if isinstance(text, bytes) else str(text).encode()
                after, widened = _judged(wanted, before, theirs)
                if after != before:
                    file.attrs["model_config"] = after
            file.flush()
            copy.write_bytes(file.id.get_file_image())
    except (OSError, KeyError, RuntimeError, ValueError) as error:
        raise fail(
            "E114",
            f"`{wanted.path}` is no HDF5 file that can be read: {printable(str(error))}",
            help="download or save it again",
        ) from error
    return Copy(copy, text is not None, widened)


def _judged(wanted: Wanted, text: bytes, theirs: dict[str, Any]) -> tuple[bytes, bool]:
    """The configuration, found harmless, as Keras 3 takes it, and whether it was widened."""
    try:
        config = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise fail("E114", f"the configuration in `{wanted.path}` is no JSON: {error}") from error
    if not isinstance(config, dict):
        raise fail("E114", f"the configuration in `{wanted.path}` is no Keras model's")
    allow = wanted.options.allow_pickle
    keras_configs.require_harmless(config, str(wanted.path), set(theirs), allow_code=allow)
    changed = keras_configs.modernise(config)
    widened = keras_configs.widen(config)
    return json.dumps(config).encode() if changed or widened else text, widened
