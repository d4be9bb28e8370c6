"""Call the C interface of a digits loader, and print what each call says: LIBRARY BUNDLE STEPS."""

import ctypes
import json
import sys
from pathlib import Path

library, bundle, steps = ctypes.CDLL(sys.argv[1]), sys.argv[2], json.loads(sys.argv[3])
library.digits_last_error.restype = ctypes.c_char_p
pixels, logits, model = (ctypes.c_float * 640)(), (ctypes.c_float * 100)(), ctypes.c_void_p()
for i in range(640):
    pixels[i] = i % 17 / 16
given = bytes(pixels)


class Options(ctypes.Structure):
    _fields_ = [
        ("threads", ctypes.c_int32),
        ("device", ctypes.c_char_p),
        ("skip_hash_check", ctypes.c_int32),
        ("cuda_graph", ctypes.c_int32),
    ]


def load(device: str = "", threads: int = 1, file: str = "") -> int:
    """Open the bundle, or the folder `file` without a look at its hash."""
    library.digits_free(model)
    options = Options(threads, device.encode() or None, bool(file))
    path = (file or bundle).encode()
    return library.digits_load(path, ctypes.byref(options), ctypes.byref(model))


def build() -> int:
    return library.digits_build(bundle.encode(), None)


def run(batch: int) -> int:
    status = library.digits_run(model, ctypes.c_int64(batch), pixels, logits)
    assert bytes(pixels) == given, "the inputs were written to"
    return status


def unlink(path: str) -> int:
    Path(path).unlink()
    return 0


for name, arguments in steps:
    failed = {"build": build, "load": load, "run": run, "unlink": unlink}[name](**arguments)
    first = [round(value, 3) for value in logits[:2]]
    print(json.dumps(library.digits_last_error().decode() if failed else first))
library.digits_free(model)
