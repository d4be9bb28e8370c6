"""Models that compute under `torch.autocast`, in float32, which their weights are in.

Autocast rounds what goes into convolutions and products to 16 bits and leaves the weights as they
are: a way to compute, which `--precision` chooses for a target, and no part of the model. ONNX's
reference has no kernels for it either. Source: torch 2.13, torch/amp/autocast_mode.py.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from infc.diagnostics import Diagnostic, Severity


@contextlib.contextmanager
def disabled() -> Iterator[set[str]]:
    """Let `torch.autocast` do nothing, in whatever form; give the types that it was entered with.

    The class itself is changed while it lasts, since the user's code may have its name already.
    """
    from torch.amp.autocast_mode import autocast

    entered: set[str] = set()
    enter, leave = autocast.__enter__, autocast.__exit__

    def pass_in(self: Any) -> Any:
        if self._enabled:
            entered.add(str(self.fast_dtype).removeprefix("torch."))
        return self

    def pass_out(self: Any, *error: object) -> bool:
        return False

    autocast.__enter__, autocast.__exit__ = pass_in, pass_out
    try:
        yield entered
    finally:
        autocast.__enter__, autocast.__exit__ = enter, leave


def note(entered: set[str]) -> tuple[Diagnostic, ...]:
    """One where autocast was left out."""
    if not entered:
        return ()
    short = {"bfloat16": "bf16", "float16": "fp16"}.get(min(entered), "bf16")
    return (
        Diagnostic(
            "E111",
            f"`forward` computes under torch.autocast in {' and '.join(sorted(entered))}; it is "
            "imported in float32, which its weights are in",
            help=f"`--precision {short}` computes in it where the target does",
            severity=Severity.NOTE,
        ),
    )
