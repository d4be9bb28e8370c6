"""What is said about calibration data: it is used as it is, and the user is told."""

from __future__ import annotations

from collections.abc import Iterable

from infc.diagnostics import Diagnostic, InfcError, Severity, fail
from infc.preprocessing import Preprocess

FEW = 20
"""Below this a warning. For samples that are drawn alike, the chance that the next one exceeds the
greatest of n, or falls below the least, is 2 / (n + 1), whatever their distribution: under a tenth
from n = 20 on."""


def no_data(names: Iterable[str]) -> InfcError:
    """E414 for targets or schemes that are called `names`."""
    return fail(
        "E414",
        f"{', '.join(f'`{name}`' for name in names)} at int8 needs calibration data",
        help="`--calibration DATA`: a .npz, a folder of arrays or images, a .csv, or "
        "module:function.\nA few hundred samples that are typical of real use; the word "
        "`random` takes random ones, which say little",
    )


def random_data(where: str) -> Diagnostic:
    """E410."""
    return _warning("E410", "the ranges will be measured on random samples", where)


def too_few(count: int, where: str) -> Diagnostic | None:
    """E409 for so few samples, None where they are enough."""
    if count >= FEW:
        return None
    if count == 1:
        message = "only one sample: any other will lie outside what it spans"
    else:
        share = round(200 / (count + 1))
        message = (
            f"only {count} samples: about {share} in 100 real ones will lie outside their span"
        )
    help = f"give at least {FEW}; 100 to 500 that are typical of real use are best"
    return _warning("E409", message, where, help)


def constant(name: str, value: float | None, where: str) -> Diagnostic:
    """E408 for the input `name`; `value` where all its elements have the same."""
    is_always = f"always {value:g}" if value is not None else "the same in every sample"
    return _warning(
        "E408",
        f"`{name}` is {is_always}: what depends on it is measured at this one value",
        where,
        "give it the values that it takes in real use",
    )


def wrong_unit(spec: Preprocess | None, where: str) -> Diagnostic | None:
    """E415 for a `std` that was published for pixels up to 1."""
    if spec is None or not spec.std or spec.scale or spec.range != Preprocess().range:
        return None
    if max(map(abs, spec.std)) >= 1:
        return None
    return _warning(
        "E415",
        f"pixels up to {spec.range:g} are divided by a `std` below 1",
        where,
        "where `mean` and `std` are for pixels up to 1, say so: `range=1`",
    )


def _warning(code: str, message: str, where: str, help: str = "") -> Diagnostic:
    return Diagnostic(code, message, where, help, severity=Severity.WARNING)
