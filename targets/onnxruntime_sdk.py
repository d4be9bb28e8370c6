"""Where the C headers and the shared library of ONNX Runtime are, for the loaders.

The Python wheel has the library and no headers. Looked at in this order: ONNXRUNTIME_ROOT, the
wheel, $INFC_HOME/sdk, the system.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

from infc.diagnostics import fail
from infc.places import data_folder

SYSTEM = ("/usr/local/include/onnxruntime", "/usr/include/onnxruntime")


def _package() -> Path | None:
    """The folder of the wheel's `onnxruntime` package; it is not imported."""
    spec = find_spec("onnxruntime")
    return Path(spec.origin).parent if spec is not None and spec.origin else None


def _first(candidates: Sequence[Path], holds: Callable[[Path], bool]) -> Path | None:
    return next((c for c in candidates if holds(c)), None)


def _roots() -> list[Path]:
    """Folders that hold an unpacked release of ONNX Runtime (include/, lib/)."""
    named = os.environ.get("ONNXRUNTIME_ROOT")
    return [*([Path(named)] if named else []), data_folder() / "sdk" / "onnxruntime"]


def _library() -> Path | None:
    """`libonnxruntime.so*`: of ONNXRUNTIME_ROOT, of the wheel, of $INFC_HOME/sdk, in this order."""
    package = _package()
    *named, home = [root / "lib" for root in _roots()]
    folders = [*named, *([package / "capi"] if package else []), home]
    found = (sorted(folder.glob("libonnxruntime.so*")) for folder in folders)
    return next((files[0] for files in found if files), None)


def entries() -> dict[str, str]:
    """CMake's ONNXRUNTIME_INCLUDE_DIR and ONNXRUNTIME_LIBRARY.

    Raises:
        InfcError: E501 where the C headers (the wheel has none) or the library is missing.
    """
    roots = [r / "include" for r in _roots()]
    folders = [f / sub for f in roots for sub in ("", "onnxruntime")] + list(map(Path, SYSTEM))
    folders += [f / "core" / "session" for f in folders]
    headers = _first(folders, lambda f: (f / "onnxruntime_c_api.h").is_file())
    if headers is None:
        raise fail(
            "E501",
            "the C headers of ONNX Runtime were not found (its Python wheel has none)",
            help="`apt install libonnxruntime-dev` (Debian 13, Ubuntu 24.10 or later), or unpack "
            "a release archive\nfrom https://github.com/microsoft/onnxruntime/releases and set "
            "ONNXRUNTIME_ROOT to its folder",
        )
    library = _library()
    if library is None:
        raise fail(
            "E501",
            "the shared library of ONNX Runtime was not found",
            help="pip install onnxruntime, or set ONNXRUNTIME_ROOT to a release's folder",
        )
    return {"ONNXRUNTIME_INCLUDE_DIR": str(headers), "ONNXRUNTIME_LIBRARY": str(library)}


def library_path() -> list[Path]:
    """The folder of the library, where there is one."""
    library = _library()
    return [library.parent] if library else []
