"""Where the headers and libraries of TVM's runtime are, for the loaders of its virtual machine.

The Python wheels have all of them. TVM_HOME names a folder that has them instead: `include` and
`lib` as in the wheels, or as an installation has them. For another kind of machine it has to be
named: the wheels that are installed are this machine's.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path

from infc.diagnostics import fail

LIBRARIES = {"TVM_FFI_LIBRARY": "libtvm_ffi.so", "TVM_RUNTIME_LIBRARY": "libtvm_runtime.so"}
HEADERS = {
    "TVM_FFI_INCLUDE_DIR": "tvm/ffi/c_api.h",
    "TVM_DLPACK_INCLUDE_DIR": "dlpack/dlpack.h",
}


def package(name: str) -> Path | None:
    """The folder of an installed package; it is not imported."""
    spec = find_spec(name)
    return Path(spec.origin).parent if spec is not None and spec.origin else None


def _roots() -> list[Path]:
    """What is named, else the wheels."""
    named = os.environ.get("TVM_HOME")
    if named:
        return [Path(named)]
    return [p for p in (package("tvm"), package("tvm_ffi")) if p is not None]


def entries() -> dict[str, str]:
    """CMake's entries for the headers and the libraries.

    Raises:
        InfcError: E501 where one of them is missing.
    """
    found = {}
    for entry, name in LIBRARIES.items():
        found[entry] = _find(name, [root / "lib" for root in _roots()])
    for entry, path in zip(HEADERS, headers(), strict=True):
        found[entry] = path
    return found


def headers() -> list[str]:
    """The folders of tvm_ffi's headers, and of DLPack's.

    Raises:
        InfcError: E501 where one of them is missing.
    """
    folders = [root / sub for root in _roots() for sub in ("include", "3rdparty/dlpack/include")]
    return [_find(name, folders).removesuffix(f"/{name}") for name in HEADERS.values()]


def _find(name: str, folders: list[Path]) -> str:
    for folder in folders:
        if (folder / name).is_file():
            return str(folder / name)
    raise fail(
        "E501",
        f"`{name}` of TVM's runtime was not found",
        help="pip install 'infc[tvm]', or set TVM_HOME to a folder with TVM's `lib` and `include`",
    )


_MACHINES = {"x86_64": 62, "aarch64": 183, "arm": 40, "riscv64": 243}
"""e_machine of an ELF file. Source: the System V ABI, chapter 4."""


def is_named_for(machine: str) -> bool:
    """Whether TVM_HOME has the runtime for a kind of machine (`aarch64`)."""
    named = os.environ.get("TVM_HOME")
    if not named:
        return False
    try:
        with (Path(named) / "lib" / LIBRARIES["TVM_RUNTIME_LIBRARY"]).open("rb") as file:
            head = file.read(20)
    except OSError:
        return False
    return head[:4] == b"\x7fELF" and int.from_bytes(head[18:], "little") == _MACHINES.get(machine)


def library_path() -> list[Path]:
    """The folders of the libraries, where they exist."""
    folders = [root / "lib" for root in _roots()]
    return [f for f in folders if any((f / name).is_file() for name in LIBRARIES.values())]
