"""The tuning database: for each kernel, the best choice that was measured. One JSON file.

    {"format": "infc tuning database", "version": 1, "compiler": "apache-tvm 0.27.0",
     "cpu": {"triple": ..., "mcpu": ..., "features": [...]},
     "records": {KEY: {"kernel": ..., "choice": {...}, "seconds": ..., "rule_seconds": ...,
                       "tried": [...]}}}

KEY is a kernel's (`kernels.Kernel.key`). A record's times are of one round, in turns, so that their
ratio means something; times of different records do not compare. A file is only ever replaced as a
whole, and writers take turns, each adding to what is there.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import math
import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infc.diagnostics import fail
from infc.targets.tvm_compiler.scheduling.choices import Choice

if TYPE_CHECKING:
    from infc.targets.tvm_compiler.cpus import Cpu

DISTRIBUTION = "apache-tvm"
FORMAT, VERSION = "infc tuning database", 1
MOST_BYTES = 1 << 26
KEY = re.compile(r"[0-9a-f]{16}")
MOST_NAME = 200
MOST_TRIED = 256


@dataclass(frozen=True, slots=True)
class Record:
    """What was found out about a kernel.

    `kernel` says what it is, for people. `seconds` is what a run takes as chosen, and
    `rule_seconds` what it took by rule, in turns with it. `tried` are all choices that were
    measured, as text.
    """

    kernel: str
    choice: Choice
    seconds: float
    rule_seconds: float
    tried: tuple[str, ...] = ()

    @property
    def ratio(self) -> float:
        """Of its time to the rule's."""
        return self.seconds / self.rule_seconds

    def to_json(self) -> dict[str, Any]:
        """A plain dict, as in the file."""
        return {
            "kernel": self.kernel,
            "choice": self.choice.to_json(),
            "seconds": self.seconds,
            "rule_seconds": self.rule_seconds,
            "tried": list(self.tried),
        }

    @classmethod
    def from_json(cls, data: Any) -> Record:
        """The inverse of `to_json`.

        Raises:
            ValueError: it is none.
        """
        if not isinstance(data, Mapping) or set(data) != set(cls.__slots__):
            raise ValueError("a record has other fields")
        kernel, tried = data["kernel"], data["tried"]
        if not isinstance(kernel, str) or len(kernel) > MOST_NAME:
            raise ValueError("a record's `kernel` is no name")
        if not isinstance(tried, list) or len(tried) > MOST_TRIED:
            raise ValueError("a record's `tried` is no list")
        if not all(isinstance(row, str) and len(row) <= MOST_NAME for row in tried):
            raise ValueError("a record's `tried` holds something else than text")
        times = []
        for name in ("seconds", "rule_seconds"):
            value = data[name]
            number = isinstance(value, float | int) and not isinstance(value, bool)
            if not number or not math.isfinite(value) or not value > 0:
                raise ValueError(f"a record's `{name}` is no time")
            times.append(float(value))
        choice = Choice.from_json(data["choice"])
        return cls(kernel, choice, times[0], times[1], tuple(tried))


@dataclass(frozen=True, slots=True)
class Database:
    """Records for one kind of processor, made with one release of TVM.

    `cpu` are the processor's triple, mcpu and features; `compiler` is TVM's name and version.
    """

    compiler: str
    cpu: Mapping[str, Any]
    records: Mapping[str, Record]

    def to_json(self) -> dict[str, Any]:
        """A plain dict, as in the file; the same for the same records."""
        rows = {key: self.records[key].to_json() for key in sorted(self.records)}
        head = {"format": FORMAT, "version": VERSION, "compiler": self.compiler}
        return {**head, "cpu": dict(self.cpu), "records": rows}

    @property
    def digest(self) -> str:
        """Of the choices, 16 hexadecimal digits: what a build depends on."""
        rows = {key: record.choice.to_json() for key, record in self.records.items()}
        text = json.dumps([self.compiler, self.cpu, rows], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def processor(self) -> str:
        """For people: `x86-64-v4 +avx512vnni (x86_64-linux-gnu)`."""
        words = [str(self.cpu["mcpu"]), *self.cpu["features"]]
        return f"{' '.join(words)} ({self.cpu['triple']})"


def identity(cpu: Cpu) -> dict[str, Any]:
    """What of a processor kernels are tuned for; how many cores it has is no part of it."""
    return {"triple": cpu.triple, "mcpu": cpu.mcpu, "features": sorted(cpu.features)}


def empty(cpu: Cpu, compiler: str) -> Database:
    """One without records."""
    return Database(compiler, identity(cpu), {})


def compiler_name() -> str:
    """TVM's distribution and version, as in a database: `apache-tvm 0.27.0`."""
    try:
        return f"{DISTRIBUTION} {version(DISTRIBUTION)}"
    except PackageNotFoundError:
        return DISTRIBUTION


def file_for(cpu: Cpu) -> Path:
    """Where the records for `cpu` are kept: `$INFC_HOME/tuning/<compiler>/<processor>.json`.

    Those of another release of TVM stay, and are in nobody's way.
    """
    from infc.places import data_folder

    words = "-".join([cpu.mcpu, *sorted(f.lstrip("+") for f in cpu.features), cpu.triple])
    folder = data_folder() / "tuning" / compiler_name().replace(" ", "-")
    return folder / f"{re.sub('[^A-Za-z0-9._-]', '_', words)}.json"


def read(path: Path) -> Database:
    """The database in the file `path`.

    Raises:
        InfcError: E209 where there is none, or where it is not one, or of another version.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise _unusable(path, f"it is larger than {MOST_BYTES >> 20} MiB")
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise fail("E209", f"there is no tuning database `{path}`") from error
    except (OSError, UnicodeDecodeError) as error:
        raise _unusable(path, f"it cannot be read: {error}") from error
    try:
        return _parsed(json.loads(text))
    except RecursionError as error:
        raise _unusable(path, "it is nested too deeply") from error
    except (ValueError, KeyError, TypeError) as error:
        raise _unusable(path, str(error)) from error


def _unusable(path: Path, reason: str) -> Exception:
    help = "name another file, or remove this one and tune again"
    return fail("E209", f"`{path}` is no tuning database that can be used: {reason}", help=help)


def _parsed(data: Any) -> Database:
    if not isinstance(data, Mapping) or data.get("format") != FORMAT:
        raise ValueError("it does not say that it is one")
    if data.get("version") != VERSION:
        raise ValueError(f"it is of version {data.get('version')!r}, and {VERSION} is known here")
    compiler, cpu, rows = data["compiler"], data["cpu"], data["records"]
    if not isinstance(compiler, str) or not isinstance(cpu, Mapping) or not isinstance(rows, dict):
        raise ValueError("`compiler`, `cpu` or `records` is of another type")
    features = cpu["features"]
    strings = [cpu["triple"], cpu["mcpu"], *(features if isinstance(features, list) else [None])]
    if set(cpu) != {"triple", "mcpu", "features"} or not all(isinstance(s, str) for s in strings):
        raise ValueError("`cpu` is no processor")
    records = {}
    for key, row in rows.items():
        if not KEY.fullmatch(key):
            raise ValueError(f"`{key[:40]}` is no kernel's key")
        records[key] = Record.from_json(row)
    return Database(compiler, dict(cpu), records)


def require_for(database: Database, path: Path, wanted: Database) -> None:
    """Refuse records that are for another processor, or made with another TVM, than `wanted`.

    Raises:
        InfcError: E209.
    """
    if database.cpu != wanted.cpu:
        raise fail(
            "E209",
            f"`{path}` is for {database.processor}, and this is for {wanted.processor}",
            help="`infc tune` measures for the target that it is given",
        )
    if database.compiler != wanted.compiler:
        raise fail(
            "E209",
            f"`{path}` was made with {database.compiler}, and here is {wanted.compiler}",
            help="tune again, into another file: kernels of another release are others",
        )


def better(one: Record, other: Record) -> Record:
    """The one that is further below the rule's time, with what either has tried.

    Equal ones are told apart by their choices, so that the order does not matter.
    """
    best = min(one, other, key=lambda r: (r.ratio, str(r.choice)))
    tried = sorted({*one.tried, *other.tried})[:MOST_TRIED]
    return replace(best, tried=tuple(tried))


def merged(database: Database, added: Mapping[str, Record]) -> Database:
    """`database` with `added`."""
    records = dict(database.records)
    for key, record in added.items():
        records[key] = better(records[key], record) if key in records else record
    return replace(database, records=records)


def without_trials(database: Database) -> Database:
    """Without what a build does not need: the choices that were tried."""
    rows = {key: replace(record, tried=()) for key, record in database.records.items()}
    return replace(database, records=rows)


def pruned(database: Database, gain: float) -> Database:
    """What takes at most `1 - gain` of the rule's time, without the choices that were tried."""
    rows = {k: r for k, r in database.records.items() if r.ratio <= 1 - gain}
    return without_trials(replace(database, records=rows))


def write(database: Database, path: Path) -> None:
    """Replace the file `path`, whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("w", encoding="utf-8") as stream:
            json.dump(database.to_json(), stream, indent=1)
            stream.write("\n")
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def update(path: Path, wanted: Database, added: Mapping[str, Record]) -> Database:
    """Add records to the file `path`, which is made where it is missing; what it holds then.

    Raises:
        InfcError: E209 where the file is something else, or not for the processor of `wanted`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _turn(path):
        there = wanted
        if path.exists():
            there = read(path)
            require_for(there, path, wanted)
        now = merged(there, added)
        write(now, path)
    return now


def rewrite(path: Path, change: Callable[[Database], Database]) -> Database:
    """Replace the database in the file `path` by what `change` makes of it.

    Raises:
        InfcError: E209.
    """
    with _turn(path):
        now = change(read(path))
        write(now, path)
    return now


@contextlib.contextmanager
def _turn(path: Path) -> Iterator[None]:
    """Wait for others who write `path`, and keep them waiting.

    The file itself is replaced, so that the lock is another beside it.
    """
    with path.with_name(f".{path.name}.lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
