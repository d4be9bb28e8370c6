"""A library that was opened in this process: arrays in, arrays out."""

from __future__ import annotations

import weakref
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from infc.targets import BackEndError
from infc.targets.tvm_compiler.forms.plan import ALIGNMENT

DTYPE_NAMES = {
    **{(0 << 8) + bits: f"int{bits}" for bits in (8, 16, 32, 64)},
    **{(1 << 8) + bits: f"uint{bits}" for bits in (8, 16, 32, 64)},
    **{(2 << 8) + bits: f"float{bits}" for bits in (16, 32, 64)},
    (4 << 8) + 16: "bfloat16",
    (6 << 8) + 8: "bool",
}
"""Element types by DLPack's code and bits, as `infc_model_tensor` gives them."""
MAX_RANK = 16
WRONG_CPU = 4
"""What infc_model.h calls INFC_MODEL_WRONG_CPU."""


class Model:
    """A library that was opened; `run` takes and gives arrays by name.

    `prefix` is what its functions begin with. Where it allocates nothing (`place`) the memory is
    made here.
    """

    def __init__(
        self,
        path: Path,
        inputs: Sequence[str],
        outputs: Sequence[str],
        threads: int,
        prefix: str = "infc_model",
        *,
        place: bool = False,
    ) -> None:
        import ctypes

        self._inputs, self._outputs = tuple(inputs), tuple(outputs)
        library = ctypes.CDLL(str(path))
        create = getattr(library, f"{prefix}_create")
        create.argtypes = (ctypes.c_int, ctypes.POINTER(ctypes.c_void_p))
        self._run = getattr(library, f"{prefix}_run")
        self._run.argtypes = (ctypes.c_void_p,) * 3
        self._message = getattr(library, f"{prefix}_message")
        self._message.argtypes = (ctypes.c_void_p,)
        self._message.restype = ctypes.c_char_p
        self._tensor = getattr(library, f"{prefix}_tensor")
        self._tensor.argtypes = (
            *(ctypes.c_int, ctypes.c_int, ctypes.POINTER(ctypes.c_int64)),
            ctypes.POINTER(ctypes.c_int),
        )
        self._handle = ctypes.c_void_p()
        if place:
            status = self._placed(library, prefix)
        else:
            status = create(threads, ctypes.byref(self._handle))
        if status == WRONG_CPU:
            raise BackEndError("the kernels use instructions that this processor does not have")
        if status:
            raise MemoryError(f"{prefix}_create gives {status}")
        destroy = getattr(library, f"{prefix}_destroy")
        destroy.argtypes, destroy.restype = (ctypes.c_void_p,), None
        # Its threads end with it. What was placed lies in this object's memory, and has none.
        if not place:
            weakref.finalize(self, destroy, self._handle)

    def _placed(self, library: Any, prefix: str) -> int:
        """Make the model in memory of this object's."""
        import ctypes

        wanted, place = getattr(library, f"{prefix}_bytes"), getattr(library, f"{prefix}_place")
        wanted.restype = ctypes.c_size_t
        place.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.POINTER(ctypes.c_void_p))
        self._memory = ctypes.create_string_buffer(wanted() + ALIGNMENT)
        start = -(-ctypes.addressof(self._memory) // ALIGNMENT) * ALIGNMENT
        return int(place(start, wanted(), ctypes.byref(self._handle)))

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """Run once.

        Raises:
            BackEndError: a kernel refuses, or an input is of another type or shape.
        """
        import ctypes

        import numpy as np

        inputs = [np.asarray(feeds[name], order="C") for name in self._inputs]
        for i, (name, array) in enumerate(zip(self._inputs, inputs, strict=True)):
            wanted = self._type(0, i)
            if (array.dtype.name, array.shape) != wanted:
                raise BackEndError(
                    f"`{name}` is {array.dtype.name} {array.shape}, not {wanted[0]} {wanted[1]}"
                )
        answers = []
        for i in range(len(self._outputs)):
            dtype, shape = self._type(1, i)
            answers.append(np.empty(shape, np.dtype(dtype)))
        pointers = [
            (ctypes.c_void_p * max(1, len(arrays)))(*(a.ctypes.data for a in arrays))
            for arrays in (inputs, answers)
        ]
        if self._run(self._handle, *pointers):
            raise BackEndError(self._message(self._handle).decode())
        return dict(zip(self._outputs, answers, strict=True))

    def _type(self, output: int, number: int) -> tuple[str, tuple[int, ...]]:
        import ctypes

        shape = (ctypes.c_int64 * MAX_RANK)()
        code = ctypes.c_int()
        rank = self._tensor(output, number, shape, ctypes.byref(code))
        return DTYPE_NAMES[code.value], tuple(shape[:rank])
