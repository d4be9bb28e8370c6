"""The task's own figure for a model's answers: higher is better.

    top1                        argmax of the first output against the label, part of all samples
    package.module:function     the user's: function(outputs, labels) -> float
    file.py:function

`outputs` is a dict, name to array: the answers to all labelled samples, joined along axis 0 in
their order; a list of arrays, one for each run of the model, where their shapes do not go
together (outputs of open size). `labels` likewise: (samples, ...) in the element type of the
data. The function is called once for every graph that is tried.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from infc.budget import TOP1
from infc.diagnostics import InfcError, did_you_mean, fail
from infc.user_code import Reference, line_of, load_module

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]


class Metric(Protocol):
    """Takes the answers run by run."""

    def add(self, outputs: Mapping[str, Array], labels: Array) -> None:
        """One run's outputs by name, in the model's order, and the labels of its samples."""
        ...

    def value(self) -> float:
        """The figure for all runs so far.

        Raises:
            InfcError: E423 where there is none.
        """
        ...


def open_metric(name: str, folder: Path) -> Metric:
    """The metric called `name`; relative paths and modules are looked for in `folder`, too.

    Raises:
        InfcError: E423 where there is no such function.
    """
    return Top1() if name == TOP1 else Users(name, folder)


class Top1:
    """The part of the samples whose label is the index of the greatest element."""

    def __init__(self) -> None:
        self._right = 0
        self._samples = 0

    def add(self, outputs: Mapping[str, Array], labels: Array) -> None:
        """`labels`: (samples,) whole numbers; the first output has as many rows of scores.

        Raises:
            InfcError: E423 where they do not go together.
        """
        import numpy as np

        name, scores = next(iter(outputs.items()))
        wanted, samples = labels.reshape(-1), labels.size
        if wanted.dtype.kind not in "iufb" or not np.array_equal(wanted, np.floor(wanted)):
            raise fail("E423", f"`{TOP1}` takes the numbers of classes, from 0, as labels")
        classes = scores.size // samples
        if classes < 2 or scores.size % samples:
            raise fail(
                "E423",
                f"`{TOP1}` takes scores of classes, and `{name}` has {scores.size} elements for "
                f"{samples} labels",
                help="`--metric module:function` computes anything else",
            )
        if wanted.max() >= classes or wanted.min() < 0:
            raise fail(
                "E423",
                f"a label is {wanted.max() if wanted.max() >= classes else wanted.min():g}, and "
                f"`{name}` has {classes} classes, numbered from 0",
            )
        self._right += int((scores.reshape(samples, -1).argmax(1) == wanted).sum())
        self._samples += samples

    def value(self) -> float:
        """From 0 to 1."""
        return self._right / self._samples


class Users:
    """A function of the user's."""

    def __init__(self, name: str, folder: Path) -> None:
        self._name = name
        self._function = _function(name, folder)
        self._outputs: dict[str, list[Array]] = {}
        self._labels: list[Array] = []

    def add(self, outputs: Mapping[str, Array], labels: Array) -> None:
        """Kept until all are there: few figures can be averaged."""
        for name, array in outputs.items():
            self._outputs.setdefault(name, []).append(array)
        self._labels.append(labels)

    def value(self) -> float:
        """What the function returns.

        Raises:
            InfcError: E423 where it raises, with its own line, or returns no finite number.
        """
        outputs = {name: _joined(arrays) for name, arrays in self._outputs.items()}
        try:
            value = float(self._function(outputs, _joined(self._labels)))
        except (Exception, SystemExit) as error:
            raise _blamed(self._name, error) from error
        if not math.isfinite(value):
            raise fail("E423", f"it returned {value}", where=self._name)
        return value


def _joined(arrays: list[Array]) -> Any:
    import numpy as np

    if all(a.ndim and a.shape[1:] == arrays[0].shape[1:] for a in arrays):
        return np.concatenate(arrays)
    return arrays


def _function(name: str, folder: Path) -> Callable[[Any, Any], Any]:
    reference = Reference.parse(name)
    if reference is None:
        raise fail("E423", f"`{name}` is neither `module:function` nor `file.py:function`")
    if reference.is_file and not (folder / reference.module).is_file():
        raise fail("E423", f"there is no file `{reference.module}`", where=name)
    try:
        module = load_module(reference, folder)
    except (Exception, SystemExit) as error:
        raise _blamed(name, error) from error
    found = getattr(module, reference.name, None)
    if not callable(found):
        raise fail(
            "E423",
            f"`{reference.module}` has no function `{reference.name}`",
            where=name,
            help=did_you_mean(reference.name, dir(module)),
        )
    function: Callable[[Any, Any], Any] = found
    return function


def _blamed(name: str, error: BaseException) -> InfcError:
    """E423 for what the user's code raised, with the line it came from."""
    if isinstance(error, InfcError):
        return error
    return fail(
        "E423",
        f"it raised {type(error).__name__}: {str(error)[:400]}",
        where=f"{name}\n{line_of(error)}".rstrip(),
    )
