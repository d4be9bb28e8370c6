"""What calibration data is, told from its name and its first bytes; nothing is executed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from infc.calibration.callables import Callable
from infc.calibration.images import SUFFIXES, ImageFolder
from infc.calibration.npy import MAGIC
from infc.calibration.sources import ArrayFolder, Listing, Source, StackedArrays
from infc.calibration.synthetic import RandomSamples
from infc.calibration.tables import Table
from infc.diagnostics import fail
from infc.preprocessing import FOR_IMAGES, FOR_TABLES, Preprocess
from infc.request import CalibrationOptions
from infc.signature import TensorSpec
from infc.user_code import Reference

RANDOM = "random"
ARRAYS = frozenset({".npy", ".npz"})
ARITHMETIC = ("range", "mean", "std", "scale", "layout")
ZIP = (b"PK\x03\x04", b"PK\x05\x06")


def find_source(options: CalibrationOptions, inputs: Sequence[TensorSpec], home: Path) -> Source:
    """The source of `options.data`, relative to the folder `home`.

    Raises:
        InfcError: E401 for what is not there or of no known kind, and what the source raises.
    """
    data, spec = options.data, options.preprocess
    if data == RANDOM:
        _require_applicable(spec, "random samples", ())
        return RandomSamples(inputs, options.samples, options.seed)
    path = home / Path(data).expanduser()
    try:
        is_folder, is_file = path.is_dir(), path.is_file()
    except (OSError, ValueError):  # too long, or holds a zero byte
        is_folder = is_file = False
    if is_folder:
        return _folder_source(path, data, inputs, options)
    if is_file:
        return _file_source(path, data, inputs, spec)
    reference = Reference.parse(data)
    if reference is None:
        raise fail(
            "E401",
            f"there is no file, folder or function `{data}`",
            help="give a .npz, .npy or .csv file, a folder of .npy, .npz or photos, "
            "`package.module:function` or `file.py:function`",
        )
    _require_applicable(spec, "a function's arrays", ARITHMETIC)
    return Callable(reference, home, inputs)


def _folder_source(
    path: Path, name: str, inputs: Sequence[TensorSpec], options: CalibrationOptions
) -> Source:
    found: list[str] = []
    for folder, folders, files in os.walk(path):
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        base = Path(folder).relative_to(path)
        found.extend((base / f).as_posix() for f in files if not f.startswith("."))
    arrays = tuple(sorted(f for f in found if Path(f).suffix.lower() in ARRAYS))
    photos = tuple(sorted(f for f in found if Path(f).suffix.lower() in SUFFIXES))
    if arrays and photos:
        raise fail(
            "E401",
            f"the folder holds {len(arrays)} arrays and {len(photos)} photos",
            where=name,
            help="name a folder that holds only one kind",
        )
    if photos:
        return ImageFolder(Listing(path, name, photos), inputs, options.preprocess)
    if arrays:
        _require_applicable(options.preprocess, "arrays", ARITHMETIC)
        return ArrayFolder(Listing(path, name, arrays), inputs, options.batch)
    there = ", ".join(f"`{f}`" for f in sorted(found)[:3])
    raise fail(
        "E401",
        f"the folder holds no sample{f', only {there}' if there else ': it is empty'}",
        where=name,
        help="samples are .npy and .npz files or photos: " + " ".join(sorted(SUFFIXES)),
    )


def _file_source(
    path: Path, name: str, inputs: Sequence[TensorSpec], spec: Preprocess | None
) -> Source:
    """By its first bytes, never by its name."""
    try:
        with path.open("rb") as stream:
            start = stream.read(4096)
    except OSError as error:
        raise fail("E401", f"the file cannot be read: {error.strerror}", where=name) from error
    if start[:4] in ZIP or start[:6] == MAGIC:
        _require_applicable(spec, "arrays", ARITHMETIC)
        return StackedArrays(path, name, inputs, "npy" if start[:6] == MAGIC else "npz")
    if path.suffix.lower() in SUFFIXES:
        return ImageFolder(Listing(path.parent, str(Path(name).parent), (path.name,)), inputs, spec)
    if path.suffix == ".py":
        raise fail("E401", "a function is missing", where=name, help=f"name it: `{name}:function`")
    if b"\0" in start or start[:1] == b"\x80":
        raise fail(
            "E401",
            "the file is neither arrays nor a table of numbers",
            where=name,
            help="give a .npz, .npy or .csv file; infc reads no pickle",
        )
    _require_applicable(spec, "a table", (*ARITHMETIC, *FOR_TABLES))
    return Table(path, name, inputs, spec)


def _require_applicable(spec: Preprocess | None, what: str, allowed: Sequence[str]) -> None:
    given = spec.given() if spec is not None else ()
    wrong = [key for key in given if key not in allowed]
    if wrong:
        photos = "that is for photos" if set(wrong) <= set(FOR_IMAGES) else ""
        raise fail(
            "E110",
            f"`--preprocess`: {', '.join(f'`{k}=`' for k in wrong)} cannot be done to {what}",
            help=photos,
        )
