"""Frontends: a file in, an `onnx_ir.Model` out.

`load` is the only entry. `sniff` decides what a file is from its bytes; each frontend returns a
`Source`, in which everything later stages need to know about the origin is said once. What is not
ONNX is made ONNX by its own framework, in a worker (`importing`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infc.diagnostics import Diagnostic, fail
from infc.import_options import ImportOptions
from infc.input_spec import InputSpec
from infc.request import WorkerLimits
from infc.signature import TensorSpec
from infc.targets import Worker

if TYPE_CHECKING:
    import onnx_ir as ir


@dataclass(frozen=True, slots=True)
class Reference:
    """How the source model is run to give the reference answer: in a worker, like an artifact.

    `module` has the `open` of a back end; `options` are handed to it through the target.
    """

    module: str
    entry: Path
    options: dict[str, str] = field(default_factory=dict)
    worker: Worker = field(default_factory=Worker)


@dataclass(frozen=True, slots=True)
class Origin:
    """Where the ONNX graph of an imported model comes from.

    `exporter` says which way of exporting was used, `versions` those of all that had a part in it,
    `options` is what the user said, for the manifest. `exported` is the exporter's own file.
    """

    framework: str
    exporter: str
    versions: Mapping[str, str]
    options: Mapping[str, Any]
    exported: Path


@dataclass(frozen=True, slots=True)
class Reading:
    """How and where a model that is not ONNX is imported.

    `scratch` is a folder that must stay as long as the model is used; `toolchains` maps frameworks
    to the environments that their exporters run in.
    """

    scratch: Path
    options: ImportOptions = field(default_factory=ImportOptions)
    toolchains: Mapping[str, str] = field(default_factory=dict)
    limits: WorkerLimits = field(default_factory=WorkerLimits)


@dataclass(frozen=True, slots=True)
class Source:
    """A model as it came in.

    `inputs` are the source's inputs after `--input` was applied; `digest` computes `sha256` when
    it is first asked for.
    """

    path: Path
    kind: str
    model: ir.Model
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    digest: Callable[[], str]
    reference: Reference
    notes: tuple[Diagnostic, ...] = ()
    origin: Origin | None = None
    """None for ONNX."""

    @property
    def sha256(self) -> str:
        """That of the file or, with external data, of all of it, which takes seconds a gigabyte.

        Raises:
            InfcError: E103 where a file of external data is no longer what was checked.
        """
        return self.digest()


def load(path: Path, inputs: Sequence[InputSpec] = (), how: Reading | None = None) -> Source:
    """Read the model `path`: a file, the folder of a SavedModel, or `package.module:factory`.

    Only ONNX can be read without `how`.

    Raises:
        InfcError: E100 to E108, all of them found at once where there are several; E111 to E117
            and E501 for what is not ONNX.
    """
    from infc.frontends.frameworks import framework_of
    from infc.frontends.sniff import EXPORT, Kind, sniff

    kind = sniff(path)
    if kind is Kind.ONNX:
        from infc.frontends import onnx

        return onnx.load(path, inputs)
    framework = framework_of(kind)
    if framework is None:
        raise fail("E101", f"`{path}` is {kind.value}, which infc does not read", help=EXPORT[kind])
    from infc.frontends import containers, importing

    assert how is not None, "an importer needs a place to work in"
    containers.require_sound(path, kind, allow_pickle=how.options.allow_pickle)
    return importing.load(path, kind, framework, inputs, how)
