"""Whether a pickle may be loaded: everything it would import belongs to plain tensors.

The allow-list is that of `torch.load(weights_only=True)`, from torch/_weights_only_unpickler.py,
and numpy's arrays and scalars. What cannot be followed to its end is unsafe: a real unpickler runs
what stands before the damage.
"""

from __future__ import annotations

import _compat_pickle
import io
import mmap
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infc.diagnostics import InfcError, fail
from infc.frontends.containers import archives
from infc.frontends.containers.pickle_machine import (
    Followed,
    Global,
    MalformedPickleError,
    Stream,
    follow,
)

if TYPE_CHECKING:
    from infc.frontends.containers.torch_archives import TorchArchive

MAX_PICKLE_BYTES = 256 << 20
MAX_SHOWN = 10
MAGIC = 0x1950A86A20F9469CFC6C
"""The first of the five pickles of a legacy checkpoint, from torch/serialization.py."""
LEGACY_PICKLES = 5
"""The magic number, the version of the protocol, `sys_info`, the object, the storages' keys."""

_STORAGES = (
    *("BFloat16", "Bool", "Byte", "Char", "Double", "Float", "Half", "Int", "Long", "Short"),
    *("ComplexDouble", "ComplexFloat"),
)
_QUANTIZED_STORAGES = ("QInt32", "QInt8", "QUInt2x4", "QUInt4x2", "QUInt8")
_TENSORS = ("BFloat16", "Byte", "Char", "Double", "Float", "Half", "Int", "Long", "Short")
_DTYPES = (
    *("bfloat16", "bool", "complex32", "complex64", "complex128", "float16", "float32", "float64"),
    *("float4_e2m1fn_x2", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz"),
    *("float8_e8m0fnu", "bits16", "bits1x8", "bits2x4", "bits4x2", "bits8"),
    *("qint32", "qint8", "quint2x4", "quint4x2", "quint8"),
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (*range(1, 9), 16, 32, 64)),
    *("per_channel_affine", "per_channel_affine_float_qparams", "per_channel_symmetric"),
    *("per_tensor_affine", "per_tensor_symmetric"),
)
_REBUILDS = (
    *("device_tensor_from_cpu_tensor", "device_tensor_from_numpy", "meta_tensor_no_storage"),
    *("nested_tensor", "parameter", "parameter_with_state", "qtensor", "sparse_tensor", "tensor"),
    *("tensor_v2", "tensor_v3", "wrapper_subclass"),
)
TORCH_GLOBALS = frozenset(
    {
        "_codecs.encode",
        "builtins.bytearray",
        "builtins.complex",
        "builtins.set",
        "collections.Counter",
        "collections.OrderedDict",
        *("torch.Size", "torch.Tensor", "torch.device", "torch.nn.parameter.Parameter"),
        *("torch.serialization._get_layout", "torch._tensor._rebuild_from_type_v2"),
        *("torch.storage.TypedStorage", "torch.storage.UntypedStorage"),
        *(f"torch.{name}" for name in _DTYPES),
        *(f"torch._utils._rebuild_{name}" for name in _REBUILDS),
        *(f"torch.{name}Storage" for name in (*_STORAGES, *_QUANTIZED_STORAGES)),
        *(f"torch.cuda.{name}Storage" for name in _STORAGES),
        *(f"torch{place}.{name}Tensor" for place in ("", ".cuda") for name in (*_TENSORS, "Bool")),
        *(f"torch{place}.sparse.{name}Tensor" for place in ("", ".cuda") for name in _TENSORS),
    }
)
"""What `torch.load(weights_only=True)` lets through, in torch 2.13."""
NUMPY_GLOBALS = frozenset(
    {
        *("numpy.dtype", "numpy.ndarray"),
        *(
            f"numpy.{core}.{name}"
            for core in ("core", "_core")
            for name in ("multiarray._reconstruct", "multiarray.scalar", "numeric._frombuffer")
        ),
    }
)
"""Arrays and scalars; torch lets them through where it is told, with `safe_globals`."""

DAMAGE = "its pickle cannot be followed: "
Allowed = Callable[[str], bool]


def is_plain(name: str) -> bool:
    """Whether the dotted `name` belongs to plain tensors."""
    return name in TORCH_GLOBALS or name in NUMPY_GLOBALS


def is_torchscript(name: str) -> bool:
    """Whether the dotted `name` may stand in an archive of TorchScript.

    Its reader is not Python's: `__torch__` are the classes of the archive's own code.
    """
    return is_plain(name) or name.startswith(("__torch__.", "torch.jit._pickle."))


def unsafe_globals(stream: Stream, allowed: Allowed = is_plain) -> list[str]:
    """What a pickle would import or do that plain data does not need; empty where it is safe.

    One pickle is read, and nothing of it is executed. What cannot be followed is among the
    answers, in words: a real unpickler runs what stands before the damage.
    """
    seen = Followed()
    _, damage = _followed(stream, seen)
    return [*offenders(seen, allowed), *damage]


def _followed(stream: Stream, seen: Followed) -> tuple[Any, list[str]]:
    """(value, where it cannot be followed); what was found is in `seen`."""
    try:
        return follow(stream, seen).value, []
    except MalformedPickleError as error:
        return None, [f"{DAMAGE}{error}"]


def offenders(seen: Followed, allowed: Allowed) -> list[str]:
    """What of a pickle that was followed is not `allowed`."""
    names = dict.fromkeys(map(_modern, seen.globals))
    return [*(name for name in names if not allowed(name)), *seen.oddities]


def _modern(found: Global) -> str:
    """The dotted name, under Python 3's name of what Python 2 called otherwise."""
    module, name = _compat_pickle.NAME_MAPPING.get(
        (found.module, found.name),
        (_compat_pickle.IMPORT_MAPPING.get(found.module, found.module), found.name),
    )
    return f"{module}.{name}"


def unsafe_legacy_globals(stream: Stream) -> list[str]:
    """`unsafe_globals` of a bare pickle, or of all five that torch before 1.6 wrote."""
    seen = Followed()
    value, damage = _followed(stream, seen)
    if isinstance(value, int) and value == MAGIC:
        for _ in range(LEGACY_PICKLES - 1):
            damage = damage or _followed(stream, seen)[1]
    return [*offenders(seen, is_plain), *damage]


def require_safe(path: Path, allow_pickle: bool) -> None:
    """Refuse a PyTorch file, in any of its containers, that would run code when it is loaded.

    Raises:
        InfcError: E113 with the names of what it would run, unless `allow_pickle`; E116 for an
            archive that is not safe to open; E117 for a damaged one, and for a damaged pickle.
    """
    with path.open("rb") as stream:
        head = stream.read(4)
    if head == archives.LOCAL_HEADER:
        found = list(_unsafe_in_archive(path))
    elif not head:
        raise archives.damaged(str(path), "it is empty")
    else:
        with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as m:
            found = unsafe_legacy_globals(m)
    damage = [text for text in found if text.startswith(DAMAGE)]
    if damage and len(damage) == len(found):
        raise archives.damaged(str(path), damage[0].removeprefix(DAMAGE))
    if found and not allow_pickle:
        raise refusal(path, found)


def _unsafe_in_archive(path: Path) -> Iterator[str]:
    from infc.frontends.containers import torch_archives

    with torch_archives.open_archive(path) as archive:
        yield from unsafe_in(archive)


def unsafe_in(archive: TorchArchive, but: str = "") -> Iterator[str]:
    """`unsafe_globals` of all pickles in an archive, `but` for the entry of that name.

    Raises:
        InfcError: E116 where one is not safe to open, E117 where one is damaged.
    """
    allowed = is_torchscript if archive.is_torchscript else is_plain
    for data in archive.pickles(MAX_PICKLE_BYTES, but):
        yield from unsafe_globals(io.BytesIO(data), allowed)


def refusal(path: Path, found: Iterable[str]) -> InfcError:
    """E113 for `path`, with what it would run."""
    names = list(dict.fromkeys(found))
    shown = ", ".join(f"`{name}`" for name in names[:MAX_SHOWN])
    rest = f" and {len(names) - MAX_SHOWN} more" if len(names) > MAX_SHOWN else ""
    return fail(
        "E113",
        f"loading `{path}` would run code from it: {shown}{rest}",
        help="where you trust its author: `--allow-pickle`; better, save it as a state_dict, with "
        "torch.export.save or as safetensors",
    )
