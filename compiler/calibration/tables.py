"""A CSV file as samples: a row of numbers is a value of the model's one input, row-major.

Separated by commas, semicolons, tabs or blanks, UTF-8. A first row that holds words is a header.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infc.calibration.fitting import Shape, fit_shape, shown
from infc.calibration.npy import damaged
from infc.calibration.sources import add_file
from infc.diagnostics import InfcError, did_you_mean, fail
from infc.preprocessing import Preprocess
from infc.signature import TensorSpec

if TYPE_CHECKING:
    from infc.calibration.sources import Row

SEPARATORS = ",;\t"
MAX_LINE = 1 << 24
"""Characters; a longer line is no row of numbers."""
Record = tuple[int, list[str]]
"""The line that it ends on, from 1, and its fields."""


class Table:
    """The rows of a CSV file, without the label column and those outside `columns`.

    Raises:
        InfcError: E402 for a file that is no such table, E403 where its width does not fit, E405
            for a model with several inputs or a label column that is not there.
    """

    kind = "table"
    text = True

    def __init__(
        self, path: Path, where: str, inputs: Sequence[TensorSpec], spec: Preprocess | None
    ) -> None:
        if len(inputs) != 1:
            names = ", ".join(f"`{i.name}`" for i in inputs)
            raise fail(
                "E405",
                f"a table feeds one input, and the model has {len(inputs)}: {names}",
                where=where,
                help="use a `.npz` with an array for each input",
            )
        (self._input,) = inputs
        self._path, self._where = path, where
        self._separator: str | None = None
        first = next(self._records(), None)
        if first is None:
            raise fail("E401", "the file is empty", where=where)
        self._label = _label(first[1], spec or Preprocess(), where)
        self._columns = _chosen(first[1], spec or Preprocess(), self._label, where)
        self._header = not all(_is_number(first[1][i]) for i in self._columns)
        self._width = len(first[1])
        self.count = sum(1 for _ in self._records()) - self._header
        self._shape = self._shape_of(len(self._columns))
        self.shapes = {self._input.name: self._shape}

    def _shape_of(self, width: int) -> Shape:
        """Of a row with `width` numbers: the input's, without the batch where it has one."""
        wanted = self._input.shape
        if wanted is None:
            return (width,)
        for dims in (wanted[1:], wanted):
            open_at = [i for i, d in enumerate(dims) if not isinstance(d, int)]
            shape = [d if isinstance(d, int) else 1 for d in dims]
            size = 1
            for d in shape:
                size *= d
            if len(open_at) == 1 and size and width % size == 0:
                shape[open_at[0]] = width // size
                size = width
            if size == width and fit_shape(self._input, tuple(shape)):
                return tuple(shape)
        raise fail(
            "E403",
            f"a row has {width} numbers, but `{self._input.name}` takes {shown(wanted)}",
            where=self._where,
            help="leave columns out with `--preprocess columns=FIRST:END` or `label=COLUMN`",
        )

    def rows(self, indices: Iterable[int]) -> Iterator[Row]:
        """Read the file once, from the beginning, up to the last row that is wanted."""
        import numpy as np

        wanted = iter(indices)
        next_one = next(wanted, None)
        for position, (line, fields) in enumerate(self._records(), -int(self._header)):
            if next_one is None:
                return
            if position != next_one:
                continue
            next_one = next(wanted, None)
            where = f"{self._where}:{line}"
            if len(fields) != self._width:
                raise damaged(where, f"the row has {len(fields)} columns, the first {self._width}")
            for column in self._columns:
                if not _is_number(fields[column]):
                    raise _no_number(where, column, fields[column])
            values = np.array([float(fields[c]) for c in self._columns], np.float64)
            yield where, {self._input.name: values.reshape(self._shape)}

    def labels(self) -> list[str] | None:
        """What the label column holds in each row; None where there is no such column.

        Raises:
            InfcError: E402 for a row that does not reach so far.
        """
        if self._label is None:
            return None
        found = []
        for line, fields in self._records():
            if len(fields) <= self._label:
                raise damaged(f"{self._where}:{line}", f"there is no column {self._label}")
            found.append(fields[self._label])
        return found[int(self._header) :]

    def digest(self, digest: Any, indices: Iterable[int]) -> bool:
        """The whole file."""
        add_file(digest, self._path, "")
        return True

    def _records(self) -> Iterator[Record]:
        """Every line with something on it, the header too."""
        try:
            with self._path.open(encoding="utf-8-sig", newline="") as stream:
                reader = csv.reader(_lines(stream, self._where), delimiter=self._separator_of())
                for fields in reader:
                    if any(field.strip() for field in fields):
                        yield reader.line_num, [field.strip() for field in fields]
        except (OSError, UnicodeDecodeError, csv.Error) as error:
            raise damaged(self._where, error) from error

    def _separator_of(self) -> str:
        """The separator that the first line has most of, else a blank."""
        if self._separator is None:
            with self._path.open(encoding="utf-8-sig", newline="") as stream:
                line = next((s for s in _lines(stream, self._where) if s.strip()), "")
            self._separator = max(SEPARATORS, key=line.count)
            if self._separator not in line and " " in line.strip():
                self._separator = " "
        return self._separator


def _lines(stream: Any, where: str) -> Iterator[str]:
    while line := stream.readline(MAX_LINE):
        if len(line) == MAX_LINE and not line.endswith("\n"):
            raise damaged(where, f"it has a line of more than {MAX_LINE} characters")
        yield line


_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d+)?|[+-]?(nan|inf|infinity)", re.I | re.A)


def _is_number(field: str) -> bool:
    return _NUMBER.fullmatch(field) is not None


def _no_number(where: str, column: int, field: str) -> InfcError:
    return fail(
        "E402",
        f"column {column} holds `{field[:40]}`, which is no number",
        where=where,
        help=f"leave it out with `--preprocess label={column}` or `columns=FIRST:END`",
    )


def _chosen(first: list[str], spec: Preprocess, label: int | None, where: str) -> tuple[int, ...]:
    """The numbers of the columns that are inputs."""
    low, high = spec.columns or (0, None)
    width = len(first)
    if low >= width or (high is not None and high > width):
        raise fail(
            "E405", f"`columns={low}:{high or ''}`: the first row has {width} columns", where=where
        )
    return tuple(c for c in range(low, width if high is None else high) if c != label)


def _label(first: list[str], spec: Preprocess, where: str) -> int | None:
    """The number of the column that is no input."""
    if spec.label is None:
        return None
    if spec.label in first and not _is_number(spec.label):
        return first.index(spec.label)
    width = len(first)
    if spec.label.isdecimal() and int(spec.label) < width:
        return int(spec.label)
    raise fail(
        "E405",
        f"there is no column `{spec.label}`",
        where=where,
        help=f"{did_you_mean(spec.label, first)}columns are numbered from 0 to {width - 1}",
    )
