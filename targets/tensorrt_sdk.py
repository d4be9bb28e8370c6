"""Where TensorRT, TensorRT for RTX and CUDA are, for the loaders: headers, and a library if any.

No wheel has the headers (NvInfer.h). The library is opened when a model is loaded and not linked,
so that a loader for another machine compiles where there is none. Looked at in this order:
TENSORRT_ROOT (TENSORRT_RTX_ROOT for RTX), the wheels, the system.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from pathlib import Path

from infc.diagnostics import fail

NAMES = {"tensorrt": "TensorRT", "tensorrt-rtx": "TensorRT for RTX"}
"""Back ends, and what messages call them."""

_ROOTS = {
    "tensorrt": ("TENSORRT_ROOT",),
    "tensorrt-rtx": ("TENSORRT_RTX_ROOT", "TENSORRT_ROOT"),
}
_LIBRARIES = {"tensorrt": "libnvinfer.so", "tensorrt-rtx": "libtensorrt_rtx.so"}
_WHEELS = {"tensorrt": "tensorrt_libs", "tensorrt-rtx": "tensorrt_rtx_libs"}
_SYSTEM = (Path("/usr"), Path("/usr/local"), Path("/usr/local/tensorrt"), Path("/opt/tensorrt"))
_CUDA_WHEELS = ("cu13",)
"""Those of CUDA 12 have their headers in several folders."""
_TRIPLES = ("x86_64-linux-gnu", "aarch64-linux-gnu")


def entries() -> dict[str, str]:
    """CMake's TENSORRT_INCLUDE_DIR, CUDA_INCLUDE_DIR and, where found, TENSORRT_LIBRARY.

    Raises:
        InfcError: E501 where the headers of TensorRT or of CUDA are missing.
    """
    return _entries("tensorrt")


def library_path() -> list[Path]:
    """The folder of libnvinfer, where there is one."""
    return _library_path("tensorrt")


def rtx_entries() -> dict[str, str]:
    """As `entries`, for TensorRT for RTX.

    Raises:
        InfcError: E501, as `entries`.
    """
    return _entries("tensorrt-rtx")


def rtx_library_path() -> list[Path]:
    """The folder of libtensorrt_rtx, where there is one."""
    return _library_path("tensorrt-rtx")


def _entries(back_end: str) -> dict[str, str]:
    headers = _holding("NvInfer.h", _include_folders(_roots(back_end)))
    if headers is None:
        variable = _ROOTS[back_end][0]
        raise fail(
            "E501",
            f"the C++ headers of {NAMES[back_end]} (NvInfer.h) were not found: no wheel has them",
            help=f"unpack the vendor's archive, or clone https://github.com/NVIDIA/TensorRT at the "
            f"library's version,\nand set {variable} to the folder that has `include` in it; on "
            "Jetson: apt install libnvinfer-headers-dev",
        )
    cuda = _holding("crt/host_defines.h", _cuda_folders())
    if cuda is None:
        raise fail(
            "E501",
            "the headers of CUDA (cuda_runtime_api.h, crt/host_defines.h) were not found",
            help="install the CUDA toolkit, or `pip install nvidia-cuda-runtime nvidia-cuda-crt`, "
            "or set CUDA_HOME to a toolkit's folder",
        )
    found = {"TENSORRT_INCLUDE_DIR": str(headers), "CUDA_INCLUDE_DIR": str(cuda)}
    library = _library(back_end)
    return found if library is None else {**found, "TENSORRT_LIBRARY": str(library)}


def _library_path(back_end: str) -> list[Path]:
    library = _library(back_end)
    return [] if library is None else [library.parent]


def _roots(back_end: str) -> list[Path]:
    named = (os.environ.get(variable) for variable in _ROOTS[back_end])
    return [*(Path(root) for root in named if root), *_SYSTEM]


def _include_folders(roots: Iterable[Path]) -> list[Path]:
    """Where headers lie below each root: the archive's layout, Debian's, the folder itself."""
    below = ("include", *(f"include/{triple}" for triple in _TRIPLES), ".")
    return [root / sub for root in roots for sub in below]


def _cuda_folders() -> list[Path]:
    named = (os.environ.get(variable) for variable in ("CUDA_HOME", "CUDA_PATH"))
    roots = [*(Path(root) for root in named if root), Path("/usr/local/cuda"), Path("/usr")]
    return [*(root / "include" for root in roots), *_cuda_wheels()]


def _cuda_wheels() -> list[Path]:
    """The `include` folders of `nvidia-cuda-runtime` of any major version."""
    spec = find_spec("nvidia")
    places = list(spec.submodule_search_locations or ()) if spec is not None else []
    return [Path(place) / name / "include" for place in places for name in _CUDA_WHEELS]


def _library(back_end: str) -> Path | None:
    """The library with the shortest versioned name: `libnvinfer.so.10`, not `.so.10.3.0`."""
    stem, wheel = _LIBRARIES[back_end], find_spec(_WHEELS[back_end])
    *named, usr, local, own, opt = _roots(back_end)
    below = ("lib", "lib64", *(f"lib/{triple}" for triple in _TRIPLES), ".")
    packages = list(wheel.submodule_search_locations or ()) if wheel is not None else []
    folders = [
        *(root / sub for root in named for sub in below),
        *(Path(package) for package in packages),
        *(root / sub for root in (usr, local, own, opt) for sub in below),
    ]
    found = (_versioned(folder, stem) for folder in folders)
    return next((path for path in found if path is not None), None)


def _versioned(folder: Path, stem: str) -> Path | None:
    names = sorted(folder.glob(f"{stem}.*"), key=lambda path: (len(path.name), path.name))
    return names[0] if names else None


def _holding(file: str, folders: Sequence[Path]) -> Path | None:
    return next((folder for folder in folders if (folder / file).is_file()), None)
