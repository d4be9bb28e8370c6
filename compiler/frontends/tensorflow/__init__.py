"""TensorFlow's frontend in the worker: SavedModel, Keras files, frozen graphs, TensorFlow Lite.

    file -> Program -> frozen GraphDef -> tf2onnx -> model.onnx       (`exporting`)
    file.tflite     -> tf2onnx -> model.onnx                          (`lite`)

A `Program` is the model as a function of tensors; the reference calls it, the export freezes it.
Everything here runs in an environment that has TensorFlow (`infc.frontends.frameworks`), and what
TensorFlow, Keras and tf2onnx print goes to the log. `importing` has the contract.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infc.frontends import containers
from infc.frontends.importing import MODEL
from infc.frontends.sniff import Kind
from infc.frontends.tensorflow.runtime import start, versions
from infc.import_options import ImportOptions
from infc.input_spec import Dim, InputSpec
from infc.targets import RunJob, Target

if TYPE_CHECKING:
    from infc.frontends.tensorflow.programs import Program
    from infc.targets import Runner


@dataclass(frozen=True, slots=True)
class Wanted:
    """A model, and what the user said about it."""

    path: Path
    kind: Kind
    options: ImportOptions
    inputs: tuple[InputSpec, ...] = ()
    home: Path = Path()
    """Where the user is: `--model file.py:Name` is relative to it."""

    def to_json(self) -> dict[str, Any]:
        """For the reference; the inputs only by rank and name, which may choose the inputs."""
        return {
            "kind": self.kind.name,
            "options": self.options.to_json(),
            "allow_pickle": self.options.allow_pickle,
            "home": str(self.home),
            "inputs": [[s.name, [d.fixed for d in s.dims], s.dtype] for s in self.inputs],
        }

    @classmethod
    def from_json(cls, path: Path, data: Mapping[str, Any]) -> Wanted:
        """The inverse of `to_json`."""
        specs = tuple(
            InputSpec(name, tuple(Dim(low=d, typical=d, high=d) for d in dims), dtype)
            for name, dims, dtype in data["inputs"]
        )
        said = ImportOptions.from_json(data["options"], allow_pickle=data["allow_pickle"])
        return cls(path, Kind[data["kind"]], said, specs, Path(data["home"]))


def import_model(payload: Mapping[str, Any]) -> dict[str, Any]:
    """The action `import`, as `importing` defines it.

    Raises:
        InfcError: E108, E110, E111, E113 to E117.
    """
    start()
    logging.basicConfig(level=logging.INFO)
    said = dict(payload["options"])
    allow_pickle = said.pop("allow_pickle")
    specs = tuple(_spec(row) for row in payload["inputs"])
    options = ImportOptions.from_json(said, allow_pickle=allow_pickle)
    path, home = Path(payload["path"]), Path(payload["home"])
    wanted = Wanted(path, Kind[payload["kind"]], options, specs, home)
    if wanted.kind in (Kind.KERAS, Kind.HDF5):
        # The driver did so too, but for the HDF5 in it where it has no h5py.
        containers.require_sound(path, wanted.kind, allow_pickle=allow_pickle)
    from infc.frontends.tensorflow import exporting, interface, lite

    if wanted.kind is Kind.TFLITE:
        exported = lite.export(wanted.path, wanted.options.signature)
    else:
        exported = exporting.export(program_of(wanted), wanted.path)
    moved = interface.settle(exported, wanted.options.layout)
    interface.save(exported.model, Path(payload["output"]) / MODEL)
    plan = {**wanted.to_json(), "moved": moved}
    return {
        "exporter": "tf2onnx",
        "versions": versions(),
        "entry": str(wanted.path),
        "options": {"plan": json.dumps(plan, sort_keys=True)},
        "notes": [note.to_json() for note in exported.notes],
    }


ACTIONS = {"import": import_model}


def _spec(row: Mapping[str, Any]) -> InputSpec:
    return InputSpec(row["name"], tuple(Dim(**dim) for dim in row["dims"]), row["dtype"])


def program_of(wanted: Wanted) -> Program:
    """The model as a function, whatever kind of file it is in.

    Raises:
        InfcError: E110, E111, E113 to E115.
    """
    if wanted.kind is Kind.SAVED_MODEL:
        from infc.frontends.tensorflow import saved_models

        return saved_models.load(wanted)
    if wanted.kind is Kind.GRAPH_DEF:
        from infc.frontends.tensorflow import frozen_graphs

        return frozen_graphs.load(wanted)
    from infc.frontends.tensorflow import keras_files

    return keras_files.load(wanted)


def open(job: RunJob) -> Runner:
    """Return a function that runs the source model in TensorFlow, on one thread, in float32.

    Raises:
        InfcError: as `program_of`.
    """
    start()
    plan = json.loads(job.target.options["plan"])
    wanted = Wanted.from_json(job.entry, plan)
    from infc.frontends.tensorflow import interface, lite, states

    if wanted.kind is Kind.TFLITE:
        run = lite.runner(wanted.path)
    else:
        run = states.runner(program_of(wanted), wanted.path)
    return interface.moving(run, plan["moved"], job.outputs)


def device(target: Target) -> str:
    """The CPU: what decides whether a graph is right should not depend on a GPU."""
    return "CPU"
