"""The files of records that `infc tune` keeps: found, put together, exported, pruned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from infc.bundle import unwritable
from infc.diagnostics import fail
from infc.targets import back_end, configure, look_up, profiles
from infc.targets.abilities import is_tunable
from infc.targets.tvm_compiler.tuning import records
from infc.targets.tvm_compiler.tuning.records import Database, read

__all__ = ["Database", "export", "merge", "path_of", "prune", "read"]


def path_of(named: Path, options: Mapping[str, str]) -> Path:
    """The file `named`, or the database in INFC_HOME of the target of that name.

    Raises:
        InfcError: E110 for a target that is not tuned, or options with a file; E205.
    """
    name = str(named)
    if name not in profiles() or named.is_file():
        if options:
            raise fail("E110", f"`-X` is for a target, and `{named}` is a file")
        return named
    target = configure(look_up(name), None, options)
    if not is_tunable(back_end(target.back_end)):
        raise fail("E110", f"`{name}` has no kernels that could be tuned")
    from infc.targets.tvm_compiler.settings import cpu_of

    return records.file_for(cpu_of(target))


def merge(paths: Sequence[Path], output: Path) -> Database:
    """Write the records of all `paths`, the better of those for one kernel, to `output`.

    Raises:
        InfcError: E209 for a file that cannot be used, or that is for another processor than the
            first; E701.
    """
    first, *others = [(path, read(path)) for path in paths]
    whole = first[1]
    for path, database in others:
        records.require_for(database, path, whole)
        whole = records.merged(whole, database.records)
    return _written(whole, output)


def export(path: Path, output: Path) -> Database:
    """Write what a build needs of the database `path` to `output`.

    Raises:
        InfcError: E209, E701.
    """
    return _written(records.without_trials(read(path)), output)


def prune(path: Path, gain: float) -> Database:
    """Leave in the file `path` what is faster than by rule by `gain`, a part of the rule's time.

    Raises:
        InfcError: E209, E701.
    """
    try:
        return records.rewrite(path, lambda database: records.pruned(database, gain))
    except OSError as error:
        raise unwritable(path, error) from error


def _written(database: Database, output: Path) -> Database:
    try:
        records.write(database, output)
    except OSError as error:
        raise unwritable(output, error) from error
    return database
