"""What every verb gives back to the command line, which prints it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from infc.diagnostics import Diagnostic, ExitCode


@dataclass(frozen=True, slots=True)
class Output:
    """The result of a verb. `diagnostics` go to stderr, and into the document."""

    document: Mapping[str, Any]
    text: str
    exit_code: ExitCode = ExitCode.DONE
    diagnostics: tuple[Diagnostic, ...] = field(default=())
