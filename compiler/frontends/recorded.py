"""The source model of a bundle, read once more as it was read for the bundle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from infc import frontends
from infc.bundle import Bundle
from infc.frontends import Reading, Source
from infc.import_options import ImportOptions
from infc.input_spec import InputSpec
from infc.native_types import source_specs
from infc.request import WorkerLimits


def reading_of(
    subject: Bundle,
    scratch: Path,
    limits: WorkerLimits,
    toolchains: Mapping[str, str],
    *,
    allow_pickle: bool,
) -> Reading:
    """How the source of `subject` was read; whether it may run code is asked each time."""
    options = subject.manifest["source"].get("import", {}).get("options", {})
    said = ImportOptions.from_json(options, allow_pickle=allow_pickle)
    return Reading(scratch, said, toolchains, limits)


def load(path: Path, subject: Bundle, how: Reading) -> Source:
    """Read `path` with the shapes that `subject` was compiled with.

    Raises:
        InfcError: as `frontends.load`.
    """
    specs = source_specs(subject.inputs)
    inputs = [InputSpec.of(spec) for spec in specs if spec.shape is not None]
    return frontends.load(path, inputs, how)


def is_imported(subject: Bundle) -> bool:
    """Whether its source was not ONNX."""
    return "import" in subject.manifest["source"]
