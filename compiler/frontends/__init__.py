"""Frontends: a file in, an `onnx_ir.Model` out.

`load` is the only entry. `sniff` decides what a file is from its bytes; each frontend returns a
`Source`, in which everything later stages need to know about the origin is said once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from infc.diagnostics import Diagnostic, fail
from infc.request import InputSpec
from infc.signature import TensorSpec

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

    @property
    def sha256(self) -> str:
        """That of the file or, with external data, of all of it, which takes seconds a gigabyte.

        Raises:
            InfcError: E103 where a file of external data is no longer what was checked.
        """
        return self.digest()


def load(path: Path, inputs: Sequence[InputSpec] = ()) -> Source:
    """Read the model file `path`.

    Raises:
        InfcError: E100 to E108, all of them found at once where there are several.
    """
    from infc.frontends.sniff import EXPORT, Kind, sniff

    kind = sniff(path)
    if kind is Kind.ONNX:
        from infc.frontends import onnx

        return onnx.load(path, inputs)
    raise fail(
        "E101",
        f"`{path}` is {kind.value}; this version of infc reads ONNX",
        help=EXPORT[kind],
    )
