"""Which records a build uses: the files that the user names, then those that infc keeps."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infc.targets.tvm_compiler.scheduling.choices import Choice
from infc.targets.tvm_compiler.tuning.records import (
    Database,
    compiler_name,
    empty,
    file_for,
    read,
    require_for,
)
from infc.targets.tvm_compiler.tuning.space import fits
from infc.tuning_options import TuningOptions

if TYPE_CHECKING:
    from infc.targets.tvm_compiler.cpus import Cpu
    from infc.targets.tvm_compiler.scheduling.kernels import Kernel


def databases(options: TuningOptions, cpu: Cpu) -> list[Database]:
    """Those that a build for `cpu` uses, the first that knows a kernel wins.

    Raises:
        InfcError: E209 for one that cannot be used.
    """
    if options.off:
        return []
    own = file_for(cpu)
    paths = [*options.databases, *([own] if own.exists() else [])]
    return [_checked(path, cpu) for path in paths]


def _checked(path: Path, cpu: Cpu) -> Database:
    found = read(path)
    require_for(found, path, empty(cpu, compiler_name()))
    return found


class Lookup:
    """Finds the choices for kernels, and counts what it found."""

    def __init__(self, options: TuningOptions, cpu: Cpu) -> None:
        self._databases = databases(options, cpu)
        self._asked = self._hits = 0
        self._used: dict[str, Choice] = {}

    def __call__(self, kernel: Kernel) -> Choice | None:
        """The choice for `kernel`; None where no record is there, or it does not fit."""
        self._asked += 1
        key = kernel.key
        record = next((d.records[key] for d in self._databases if key in d.records), None)
        if record is None or not fits(record.choice, kernel.extents()):
            return None
        self._used[key] = record.choice
        self._hits += 1
        return record.choice

    def notes(self) -> dict[str, Any]:
        """For the manifest: how many kernels there are, how many have a record, and which.

        `records_digest` is of what was used alone: other records change nothing in a build.
        """
        found = {"kernels": self._asked, "records": self._hits}
        if not self._used:
            return found
        rows = {key: choice.to_json() for key, choice in sorted(self._used.items())}
        digest = hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()[:16]
        return {**found, "records_digest": digest}
