"""What processors have for int8: four products added up in every lane of 32 bits.

    c[i] += sum over k < 4:  a[k] * b[i, k]      i: lanes; a: activations; b: weights; c: int32

A block of a kernel that says so is replaced by the instruction (TVM's tensorize). `order` is how
`b` lies in memory, so that one load gives what the instruction wants:

    words    [lane][4]      VPDPBUSD (AVX-512 VNNI, AVX-VNNI); SDOT (aarch64 `dotprod`);
                            VPMADDWD on bytes 0, 2 and 1, 3 (SSE2, AVX2, AVX-512BW)
    pairs    [2][lane][2]   SMULL, SMLAL, SADALP (aarch64)
    planes   [4][lane]      anything else: multiplied in 32 bits

None of them saturates: VPMADDUBSW would, which adds two products of uint8 x int8 in 16 bits, and
is not used. SMLAL adds two products of int8 in 16 bits: 2 * 128 * 127 fits, and -128 x -128 twice
does not, so that `pairs` are for weights without -128.

Source: Intel 64 and IA-32 SDM volume 2; Arm A-profile A64 ISA; LLVM 22 IntrinsicsX86.td (since 22
the operands of VPDPBUSD are vectors of bytes), IntrinsicsAArch64.td.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from infc.targets.tvm_compiler.cpus import Cpu

WORD = 4
"""Products that one instruction adds up in a lane."""
SIGNED = ("aarch64", "arm")
"""Families whose instructions multiply int8 by int8; the others have uint8 by int8."""


@dataclass(frozen=True, slots=True)
class DotProduct:
    """An instruction, or what stands for one. `name` is for messages and the manifest.

    `lanes` are the numbers of lanes that it comes in, widest first.
    """

    name: str
    order: str
    lanes: tuple[int, ...]

    def width(self, channels: int) -> int:
        """The lanes for so many output channels: the fewest that hold them all, else the most."""
        fitting = [n for n in self.lanes if n >= channels]
        return min(fitting) if fitting else self.lanes[0]

    def shape(self, lanes: int) -> tuple[int, ...]:
        """Of the weights that one instruction reads."""
        return {"words": (lanes, WORD), "pairs": (2, lanes, 2), "planes": (WORD, lanes)}[self.order]

    def place(self, lane: Any, k: Any) -> tuple[Any, ...]:
        """Where the weight of a lane lies in that shape."""
        if self.order == "words":
            return lane, k
        return (k // 2, lane, k % 2) if self.order == "pairs" else (k, lane)


def activation_of(triple: str) -> str:
    """The type that activations have on processors of `triple`."""
    return "int8" if triple.startswith(SIGNED) else "uint8"


def dot_product_of(cpu: Cpu) -> DotProduct:
    """The best that the processor has."""
    import tvm
    from tvm.target.codegen import target_has_features

    target = tvm.target.Target(cpu.target())

    def has(*features: str) -> bool:
        return any(bool(target_has_features(name, target)) for name in features)

    wide = tuple(n for n in (16, 8, 4) if n * WORD <= cpu.vector_bytes)
    if cpu.triple.startswith("x86_64"):
        if has("avx512vnni", "avxvnni"):
            return DotProduct("vpdpbusd", "words", wide)
        return DotProduct("vpmaddwd", "words", wide or (4,))
    if cpu.triple.startswith("aarch64"):
        return DotProduct("sdot", "words", (4,)) if has("dotprod") else _SMLAL
    return DotProduct("multiply-add", "planes", wide or (4,))


_SMLAL = DotProduct("smlal", "pairs", (4,))
EXACT_PLANES = DotProduct("multiply-add", "planes", (4,))
"""For aarch64 without `dotprod` where a weight is -128."""


def intrinsic(dot: DotProduct, lanes: int, activation: str) -> str:
    """The name under which the instruction is known to TVM; it is registered the first time."""
    name = f"infc_{dot.name}_{lanes}_{activation}"
    _register(name, dot, lanes, activation)
    return name


@cache
def _register(name: str, dot: DotProduct, lanes: int, activation: str) -> None:
    from tvm.s_tir import TensorIntrin

    TensorIntrin.register(
        name, _meaning(dot, lanes, activation), _instruction(dot, lanes, activation), override=True
    )


def _meaning(dot: DotProduct, lanes: int, activation: str) -> Any:
    """The block that is replaced."""
    from tvm.script import tirx

    shape, place = dot.shape(lanes), dot.place
    whole = tuple(slice(0, n) for n in shape)

    @tirx.prim_func(s_tir=True)  # type: ignore[untyped-decorator, unused-ignore]
    def described(
        a: tirx.Buffer((4,), activation, offset_factor=1),  # type: ignore[valid-type]
        b: tirx.Buffer(shape, "int8", offset_factor=1),  # type: ignore[valid-type]
        c: tirx.Buffer((lanes,), "int32", offset_factor=1),  # type: ignore[valid-type]
    ) -> None:
        with tirx.sblock("root"):
            tirx.reads(c[0:lanes], a[0:4], b[whole])
            tirx.writes(c[0:lanes])
            for i in tirx.serial(0, lanes):
                for k in tirx.serial(0, 4):
                    with tirx.sblock("update"):
                        vi, vk = tirx.axis.remap("SR", [i, k])
                        c[vi] = c[vi] + tirx.cast(a[vk], "int32") * tirx.cast(
                            b[place(vi, vk)], "int32"
                        )

    return described


def _instruction(dot: DotProduct, lanes: int, activation: str) -> Any:
    """What it is replaced by."""
    from tvm.script import tirx

    shape = dot.shape(lanes)
    whole = tuple(slice(0, n) for n in shape)
    added = _BODIES[dot.name]

    @tirx.prim_func(s_tir=True)  # type: ignore[untyped-decorator, unused-ignore]
    def made(
        a: tirx.Buffer((4,), activation, offset_factor=1),  # type: ignore[valid-type]
        b: tirx.Buffer(shape, "int8", offset_factor=1),  # type: ignore[valid-type]
        c: tirx.Buffer((lanes,), "int32", offset_factor=1),  # type: ignore[valid-type]
    ) -> None:
        with tirx.sblock("root"):
            tirx.reads(c[0:lanes], a[0:4], b[whole])
            tirx.writes(c[0:lanes])
            c[tirx.ramp(tirx.int32(0), 1, lanes)] = added(a, b, c, lanes)

    return made


def _call(intrinsic_name: str, dtype: str, *arguments: Any) -> Any:
    from tvm.script import tirx

    number = tirx.llvm_lookup_intrinsic_id(intrinsic_name)
    return tirx.call_llvm_pure_intrin(number, *arguments, dtype=dtype)


def _vector(name: str, lanes: int) -> str:
    """A vector type; one lane is a scalar."""
    return name if lanes == 1 else f"{name}x{lanes}"


def _word(a: Any) -> Any:
    """The four activations as one int32."""
    from tvm.script import tirx

    return tirx.reinterpret(a.vload([0], f"{a.dtype}x4"), dtype="int32")


def _vpdpbusd(a: Any, b: Any, c: Any, lanes: int) -> Any:
    from tvm.script import tirx

    bits, bytes_ = lanes * 32, f"int8x{lanes * WORD}"
    word = tirx.reinterpret(tirx.broadcast(_word(a), lanes), dtype=bytes_)
    return _call(
        f"llvm.x86.avx512.vpdpbusd.{bits}",
        f"int32x{lanes}",
        c.vload([0], f"int32x{lanes}"),
        word,
        b.vload([0, 0], bytes_),
    )


_MADDWD = {4: "llvm.x86.sse2.pmadd.wd", 8: "llvm.x86.avx2.pmadd.wd"}


def _vpmaddwd(a: Any, b: Any, c: Any, lanes: int) -> Any:
    """Bytes 0 and 2 of each word, then 1 and 3, as int16; what is done to `b` serves all rows."""
    from tvm.script import tirx

    name = _MADDWD.get(lanes, "llvm.x86.avx512.pmaddw.d.512")
    words, halves = f"int32x{lanes}", f"int16x{lanes * 2}"
    mask = tirx.int32(0x00FF00FF)
    word = _word(a)
    even = tirx.bitwise_and(word, mask)
    odd = tirx.bitwise_and(tirx.shift_right(word, tirx.int32(8)), mask)
    weights = tirx.reinterpret(b.vload([0, 0], f"int8x{lanes * WORD}"), dtype=halves)
    eight = tirx.broadcast(tirx.int16(8), lanes * 2)
    low = tirx.shift_right(tirx.shift_left(weights, eight), eight)
    high = tirx.shift_right(weights, eight)
    result = c.vload([0], words)
    for part, scale in ((even, low), (odd, high)):
        spread = tirx.reinterpret(tirx.broadcast(part, lanes), dtype=halves)
        result = result + _call(name, words, spread, scale)
    return result


def _sdot(a: Any, b: Any, c: Any, lanes: int) -> Any:
    from tvm.script import tirx

    word = tirx.reinterpret(tirx.broadcast(_word(a), lanes), dtype=f"int8x{lanes * WORD}")
    return _call(
        "llvm.aarch64.neon.sdot",
        f"int32x{lanes}",
        c.vload([0], f"int32x{lanes}"),
        word,
        b.vload([0, 0], f"int8x{lanes * WORD}"),
    )


def _smlal(a: Any, b: Any, c: Any, lanes: int) -> Any:
    from tvm.script import tirx

    word = _word(a)
    products = None
    for half in range(2):
        pair = tirx.cast(tirx.shift_right(word, tirx.int32(16 * half)), "int16")
        spread = tirx.reinterpret(tirx.broadcast(pair, lanes), dtype=f"int8x{lanes * 2}")
        weights = b.vload([half, 0, 0], f"int8x{lanes * 2}")
        product = _call("llvm.aarch64.neon.smull.v8i16", f"int16x{lanes * 2}", spread, weights)
        products = product if products is None else products + product
    sums = _call("llvm.aarch64.neon.saddlp.v4i32.v8i16", f"int32x{lanes}", products)
    return c.vload([0], f"int32x{lanes}") + sums


def _multiply_add(a: Any, b: Any, c: Any, lanes: int) -> Any:
    from tvm.script import tirx

    wide = _vector("int32", lanes)
    result = c.vload([0], wide)
    for k in range(WORD):
        factor = tirx.cast(a.vload([k]), "int32")
        weights = tirx.cast(b.vload([k, 0], _vector("int8", lanes)), wide)
        result = result + weights * (factor if lanes == 1 else tirx.broadcast(factor, lanes))
    return result


_BODIES: dict[str, Callable[[Any, Any, Any, int], Any]] = {
    "vpdpbusd": _vpdpbusd,
    "vpmaddwd": _vpmaddwd,
    "sdot": _sdot,
    "smlal": _smlal,
    "multiply-add": _multiply_add,
}
