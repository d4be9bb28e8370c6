"""Render the loaders of a bundle, compile them, and run them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from infc.bundle import Bundle
from infc.diagnostics import fail
from infc.loaders import cpp, java
from infc.loaders.recipe import Recipe
from infc.loaders.signature import describe
from infc.request import WorkerLimits
from infc.signature import TensorSpec
from infc.targets import Artifact, Target, back_end
from infc.targets.abilities import absence_of, cross_of

if TYPE_CHECKING:
    from infc.verification.timing import Timing


def possible(target: Target, languages: Sequence[str]) -> tuple[str, ...]:
    """Those of `languages` that a loader for `target` can be in: none without a system."""
    cross = cross_of(back_end(target.back_end), target)
    return tuple(languages) if cross is None or cross.hosted else ()


def render(
    folder: Path,
    name: str,
    target: Target,
    artifact: Artifact,
    inputs: Sequence[TensorSpec],
    outputs: Sequence[TensorSpec],
    languages: Sequence[str],
    recipe: Recipe | None = None,
) -> None:
    """Write `loader/<language>/` into the bundle in `folder`.

    Java calls the C interface: it brings the C++ loader with it. `recipe` is for an artifact that
    is still to be built, on the device.

    Raises:
        InfcError: E704 where the signature cannot be typed.
    """
    if not languages:
        return
    signature = describe(name, inputs, outputs)
    cpp.render(folder / "loader" / "cpp", signature, target, artifact, folder / "model", recipe)
    if "java" in languages:
        java.render(folder / "loader" / "java", signature)


class _Language(Protocol):
    """What the module of a language offers."""

    def build(self, bundle: Bundle, scratch: Path, limits: WorkerLimits) -> Path:
        """Compile the loader; return the program."""
        ...

    def run(
        self, program: Path, bundle: Bundle, arguments: Sequence[str], limits: WorkerLimits
    ) -> dict[str, Any]:
        """Run the program and return what it prints as JSON."""
        ...


def _language(name: str) -> _Language:
    if name == "cpp":
        return cpp
    if name == "java":
        return java
    raise fail("E110", f"there is no loader in `{name}`", help="cpp or java")


def run_through(
    bundle: Bundle,
    through: str,
    feeds: Sequence[Path],
    outputs: Sequence[Path],
    scratch: Path,
    limits: WorkerLimits,
    threads: int = 1,
) -> None:
    """Compile the loader of the language `through` and run the artifact through it.

    Each tensor folder in `feeds` is answered by the new one at its place in `outputs`.

    Raises:
        InfcError: E110, E501, E502, E503, E702, E703, E705.
    """
    _require_here(bundle, through)
    program = _language(through).build(bundle, scratch / f"loader-{through}", limits)
    arguments = ["--threads", str(threads), *cpp.device_arguments(bundle)]
    for given, answer in zip(feeds, outputs, strict=True):
        _require_order(bundle, given)
        arguments += ["--inputs", str(given), "--outputs", str(answer)]
    _language(through).run(program, bundle, arguments, limits)


def bench_through(
    bundle: Bundle,
    through: str,
    feeds: Path,
    timing: Timing,
    scratch: Path,
    limits: WorkerLimits,
) -> dict[str, Any]:
    """Time the artifact through a loader: `runs`, and min, median and max in milliseconds.

    Raises:
        InfcError: as `run_through`.
    """
    _require_here(bundle, through)
    program = _language(through).build(bundle, scratch / f"loader-{through}", limits)
    _require_order(bundle, feeds)
    arguments = [
        *("--threads", str(timing.threads)),
        *("--runs", str(timing.runs)),
        *("--warmup", str(timing.warmup)),
        *cpp.device_arguments(bundle),
        *("--inputs", str(feeds)),
    ]
    answer = _language(through).run(program, bundle, arguments, limits)
    return {key: answer[key] for key in ("runs", "min_ms", "median_ms", "max_ms")}


def _require_here(bundle: Bundle, through: str) -> None:
    """Refuse a loader that nothing on this machine runs.

    Raises:
        InfcError: E110.
    """
    target = Target.from_json(bundle.manifest["target"])
    end = back_end(target.back_end)
    cross = cross_of(end, target)
    if cross is None or not cross.foreign:
        return
    why = absence_of(end, target)
    if through == "java":
        why = why or "no Java for it runs here: `--through cpp`"
    if not why:
        return
    what = f"`--through {through}`: the loader is for {cross.triple}"
    raise fail("E110", what, help=why)


def _require_order(bundle: Bundle, feeds: Path) -> None:
    """The programs take tensors by their place, so that their folders must have the inputs' order.

    Raises:
        InfcError: E110 for a folder of another model.
    """
    names = [
        row["name"] for row in json.loads((feeds / "tensors.json").read_text(encoding="utf-8"))
    ]
    expected = [spec.name for spec in bundle.inputs]
    if names != expected:
        raise fail("E110", f"`{feeds}` holds {', '.join(names)}; the inputs are {expected}")
