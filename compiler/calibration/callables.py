"""The user's own code as a source: `package.module:function` or `path/to/file.py:function`.

The function takes nothing and returns, or is a generator of, samples: dicts of arrays named after
the inputs, tuples in the inputs' order, or single arrays for a model with one input; arrays are
whatever `numpy.asarray` takes, torch tensors among them. A list or any other iterable object does
instead of a function. Nothing is imported before the first sample is asked for.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infc.calibration.fitting import Shape, by_name
from infc.diagnostics import InfcError, did_you_mean, fail
from infc.signature import TensorSpec
from infc.user_code import Reference, line_of, load_module

if TYPE_CHECKING:
    import numpy as np

    from infc.calibration.sources import Row


class Callable:
    """What the reference yields; relative paths and modules are looked for in `folder`, too."""

    kind = "function"
    text = False
    count: int | None = None
    shapes: Mapping[str, Shape] | None = None

    def __init__(self, reference: Reference, folder: Path, inputs: Sequence[TensorSpec]) -> None:
        self._reference = reference
        self._folder = folder
        self._inputs = tuple(inputs)
        if reference.is_file and not (folder / reference.module).is_file():
            raise fail("E401", f"there is no file `{reference.module}`")

    @property
    def _called(self) -> str:
        return f"{self._reference.module}:{self._reference.name}"

    def rows(self, indices: Iterable[int]) -> Iterator[Row]:
        """Run the code from its beginning; samples before the first wanted one are thrown away.

        Raises:
            InfcError: E407 where it raises, with its own line, or yields nothing.
        """
        with self._blamed():
            samples = self._samples()
        wanted = iter(indices)
        next_one = next(wanted, None)
        index = 0
        while next_one is not None:
            with self._blamed():
                try:
                    value = next(samples)
                except StopIteration:
                    break
            if index == next_one:
                where = f"sample {index} of {self._called}"
                yield where, self._arrays(value, where)
                next_one = next(wanted, None)
            index += 1
        if index == 0:
            raise fail("E407", "it yields no sample", where=self._called)

    def repeats(self) -> bool:
        """Whether it can be read again: it is no iterator, which ends once and for all.

        Raises:
            InfcError: E407 where the module cannot be imported.
        """
        with self._blamed():
            found = self._found()
            return callable(found) or not hasattr(found, "__next__")

    def digest(self, digest: Any, indices: Iterable[int]) -> bool:
        """Code may do what it likes."""
        return False

    def _found(self) -> Any:
        home = load_module(self._reference, self._folder)
        found = getattr(home, self._reference.name, None)
        if found is None:
            raise fail(
                "E407",
                f"`{self._reference.module}` has no `{self._reference.name}`",
                where=self._called,
                help=did_you_mean(self._reference.name, dir(home)),
            )
        return found

    def _samples(self) -> Iterator[Any]:
        found = self._found()
        samples = found() if callable(found) else found
        if isinstance(samples, (Mapping, str, bytes)) or not isinstance(samples, Iterable):
            raise fail(
                "E407",
                f"it gives one `{type(samples).__name__}`, not one sample after the other",
                where=self._called,
                help="`yield` each sample, or return a list of them",
            )
        return iter(samples)

    @contextlib.contextmanager
    def _blamed(self) -> Iterator[None]:
        """Turn what the user's code raises into E407 with the line it came from."""
        try:
            yield
        except InfcError:
            raise
        except (Exception, SystemExit) as error:
            raise fail(
                "E407",
                f"it raised {type(error).__name__}: {str(error)[:400]}",
                where=f"{self._called}\n{line_of(error)}".rstrip(),
                help=f"modules are looked for in `{self._folder}` and where Python is installed"
                if isinstance(error, ModuleNotFoundError)
                else "",
            ) from error

    def _arrays(self, value: Any, where: str) -> dict[str, np.ndarray[Any, Any]]:
        """A sample by input.

        Raises:
            InfcError: E404 for what is no array, E405 where an input has no value.
        """
        if isinstance(value, Mapping):
            named = by_name({str(k): v for k, v in value.items()}, self._inputs, where)
        else:
            values = value if isinstance(value, tuple) else (value,)
            if len(values) != len(self._inputs):
                names = ", ".join(f"`{spec.name}`" for spec in self._inputs)
                raise fail(
                    "E405",
                    f"it has {len(values)} values, and the model has {len(self._inputs)} inputs: "
                    f"{names}",
                    where=where,
                    help=f"yield a dict: `{{{self._inputs[0].name!r}: array}}`",
                )
            named = {s.name: v for s, v in zip(self._inputs, values, strict=True)}
        return {name: _as_array(v, name, where) for name, v in named.items()}


def _as_array(value: Any, name: str, where: str) -> np.ndarray[Any, Any]:
    import numpy as np

    try:
        if hasattr(value, "detach"):  # a torch tensor, which may need gradients or lie on a device
            value = value.detach().cpu()
        # A copy: generators like to fill one buffer again and again.
        array = np.array(np.asarray(value))
    except Exception as error:  # the value's own `__array__` may raise anything
        raise fail("E404", f"the value for `{name}` is no array: {error}", where=where) from error
    if array.dtype.kind not in "fiubcV":
        raise fail(
            "E404", f"the value for `{name}` is a `{type(value).__name__}`, no array", where=where
        )
    return array
