"""What the verbs of the driver give back."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infc import pipeline
from infc.comparison import OutputError
from infc.diagnostics import Diagnostic, ExitCode, InfcError, Severity, combined_exit_code

Progress = Callable[[str, str], None]
"""Called with (target or "", what is being done now)."""


def silent(target: str, step: str) -> None:
    """The progress of those who do not want any."""


@dataclass(frozen=True, slots=True)
class TargetResult:
    """What became of one target. `bundle` is None where it failed, `log` where nothing was run."""

    target: str
    bundle: Path | None
    log: Path | None
    diagnostics: tuple[Diagnostic, ...]
    verification: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    measured: dict[str, Any] = field(default_factory=dict)
    """What was timed: `tuning`, and `beside`, the artifact and another back end's in turns."""

    @property
    def exit_code(self) -> ExitCode:
        """Of this target alone; a bundle may be published that something is still amiss with."""
        errors = [d for d in self.diagnostics if d.severity is Severity.ERROR]
        if self.bundle is not None and not errors:
            return ExitCode.DONE
        return InfcError(*errors or self.diagnostics).exit_code


@dataclass(frozen=True, slots=True)
class FinishResult:
    """What became of a bundle whose engine was left to the device.

    `library` and `gpu` are what built it, `latency` is what a run takes there (None where it was
    not run). `machine` is the other machine, "" for this one; `sent` says how many bytes went
    there, and how many were there already.
    """

    bundle: Path
    state: str
    changed: bool
    library: Mapping[str, str]
    gpu: Mapping[str, Any] | None
    facts: Mapping[str, Any]
    verification: Mapping[str, Any]
    latency: Mapping[str, Any] | None
    machine: str = ""
    sent: Mapping[str, int] = field(default_factory=dict)
    diagnostics: tuple[Diagnostic, ...] = ()

    @property
    def exit_code(self) -> ExitCode:
        """3 where nothing proves the engine, and nobody wanted it so."""
        errors = [d for d in self.diagnostics if d.severity is Severity.ERROR]
        return InfcError(*errors).exit_code if errors else ExitCode.DONE


@dataclass(frozen=True, slots=True)
class CompileResult:
    """What became of a request: one row for each target, in the order they were named."""

    results: tuple[TargetResult, ...]
    passes: tuple[pipeline.PassRecord, ...]
    nodes_before: int
    nodes_after: int
    notes: tuple[Diagnostic, ...]

    @property
    def exit_code(self) -> ExitCode:
        """Of the whole command."""
        return combined_exit_code([r.exit_code for r in self.results])


@dataclass(frozen=True, slots=True)
class OptimizeResult:
    """What `optimize` wrote, and the comparison with the source model ({} where skipped)."""

    output: Path
    passes: tuple[pipeline.PassRecord, ...]
    nodes_before: int
    nodes_after: int
    verification: dict[str, Any]
    notes: tuple[Diagnostic, ...]
    pruning: dict[str, Any] | None = None
    """What a manifest would say of it."""


@dataclass(frozen=True, slots=True)
class QuantizeResult:
    """What `quantize` wrote.

    `quantization` is what a manifest would say of it, `verification` the comparison with the
    source model ({} where skipped).
    """

    output: Path
    quantization: dict[str, Any]
    verification: dict[str, Any]
    notes: tuple[Diagnostic, ...]
    pruning: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class TuneResult:
    """What measuring for a target found, and the file of all its records."""

    target: str
    database: Path
    found: dict[str, Any]


@dataclass(frozen=True, slots=True)
class VerifyResult:
    """A verification that passed: the error of every output. A failed one raises."""

    bundle: Path
    through: str
    sets: int
    errors: tuple[OutputError, ...]
    device: str
    """That the target names."""
    ran_on: str
    """The same, or what stood in where that is absent."""
