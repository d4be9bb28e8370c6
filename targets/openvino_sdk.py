"""Where OpenVINO's C++ package and libraries are, for the loaders: the wheel has both."""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

from infc.diagnostics import fail

CMAKE_ENTRY = "OpenVINO_DIR"


def _package() -> Path | None:
    """The folder of the wheel's `openvino` package; it is not imported."""
    spec = find_spec("openvino")
    return Path(spec.origin).parent if spec is not None and spec.origin else None


def _cmake_folder() -> Path | None:
    """The folder of OpenVINOConfig.cmake: of an installation that is named, else of the wheel."""
    named, root = os.environ.get(CMAKE_ENTRY), os.environ.get("INTEL_OPENVINO_DIR")
    package = _package()
    candidates = [
        Path(named) if named else None,
        Path(root) / "runtime" / "cmake" if root else None,
        package / "cmake" if package else None,
    ]
    found = (c for c in candidates if c is not None and (c / "OpenVINOConfig.cmake").is_file())
    return next(found, None)


def entries() -> dict[str, str]:
    """CMake's OpenVINO_DIR.

    Raises:
        InfcError: E501 where there is none.
    """
    folder = _cmake_folder()
    if folder is None:
        raise fail(
            "E501",
            "OpenVINO's C++ package (OpenVINOConfig.cmake) was not found",
            help="pip install openvino, or set OpenVINO_DIR to the folder that holds it",
        )
    return {CMAKE_ENTRY: str(folder)}


def library_path() -> list[Path]:
    """The wheel's `libs`, an archive's `runtime/lib/intel64` and its TBB, where they exist."""
    folder = _cmake_folder()
    if folder is None:
        return []
    around = folder.parent
    candidates = [
        around / "libs",
        *sorted((around / "lib").glob("*/")),
        around / "3rdparty" / "tbb" / "lib",
    ]
    return [c for c in candidates if c.is_dir()]
