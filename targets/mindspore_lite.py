"""MindSpore Lite: the artifact is a `.ms` flatbuffer, for phones with Kirin chips and for Ascend.

The converter and the runtime come in one wheel, for Python 3.7 only: they run in the toolchain
`mindspore-lite` (`infc toolchain install mindspore-lite`), through `mindspore_lite_worker`. What
the converter silently gets wrong is rewritten or refused before it sees it
(`mindspore_lite_lowering`, `mindspore_lite_operators`); both look at the graph in infc's own
environment. int64 becomes int32 in the artifact; the loaders convert and check.

fp16 halves the weights and computes as the device does; int8 is the converter's own full
quantisation, from infc's calibration samples. Weight quantisation alone is not offered: this
runtime does not load what the converter makes of it.

Source: MindSpore Lite 2.0 (wheel 2.0.0).
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from infc.diagnostics import fail
from infc.model_key import read_key
from infc.places import toolchain_folder
from infc.request import Precision
from infc.targets import (
    Artifact,
    BuildJob,
    LoaderSpec,
    RunJob,
    Target,
    Unsupported,
    Worker,
    choice,
)
from infc.targets import mindspore_lite_vendor as vendor
from infc.targets.abilities import Seal

if TYPE_CHECKING:
    import onnx_ir as ir

    from infc.targets import Runner

NAME = "mindspore-lite"
SUMMARY = "MindSpore Lite: .ms for Android, Kirin and Ascend"
EXTRA = "mindspore"
DISTRIBUTIONS = ("mindspore-lite",)
MODULES: tuple[str, ...] = ()
OPTIONS: Mapping[str, str] = {
    "encrypt": "aes-gcm: the model file can only be opened with the key (default off)",
    "key-file": "file with the key, 32 hexadecimal digits (default: INFC_MODEL_KEY)",
    "quant": "of int8: full, or dynamic, the weights of MatMul alone (default full)",
}
PRECISIONS = (Precision.FP32, Precision.FP16, Precision.INT8)
MIN_OPSET = 13
THREADS = (1, 4)
"""Some of the runtime's kernels are wrong only with several threads."""

TOOLCHAIN = "mindspore-lite"
QUANT = ("full", "dynamic")
CALIBRATION_SAMPLES = 128
"""At most. The correction of biases runs the int8 graph once for each, in kernels that are slow on
x86: 0.45 s for a 320 x 240 face detector."""
CANN_VARIABLES = ("ASCEND_HOME_PATH", "ASCEND_TOOLKIT_HOME")
CANN_FOLDERS = ("/usr/local/Ascend/ascend-toolkit/latest", "/usr/local/Ascend/latest")
CANN_LIBRARY = "libgraph.so"
"""Of the graph engine: what the converter's Ascend plugin opens first."""


def worker(target: Target) -> Worker:
    """The toolchain of the wheel; the vendor's converter is preferred where that is there.

    What the latter makes is run by its archive's runtime, through the C++ loader, or by the wheel's
    where the archive has none.

    Raises:
        InfcError: E501 for Ascend without its libraries, and for a converter without a runtime.
    """
    if target.device == "ASCEND":
        require_cann()
    script = Path(__file__).with_name("mindspore_lite_worker.py")
    wheel = Worker(target.toolchain or TOOLCHAIN, script)
    if target.toolchain or vendor.find() is None:
        return wheel
    if _archive() is not None:
        return Worker(runner=Worker(native=True))
    if _package() is None:
        raise fail(
            "E501",
            f"`{vendor.find()}` has no runtime beside it to run what it makes",
            help=f"set {vendor.HOME_VARIABLE} to the folder of the whole archive, or\n"
            f"infc toolchain install {TOOLCHAIN}",
        )
    return Worker(runner=wheel)


def require_cann() -> Path:
    """The folder of CANN, Huawei's toolkit for Ascend.

    Raises:
        InfcError: E501 where it is not installed.
    """
    named = [os.environ[name] for name in CANN_VARIABLES if os.environ.get(name)]
    for folder in (*named, *CANN_FOLDERS):
        for library in ("lib64", "x86_64-linux/lib64", "aarch64-linux/lib64"):
            if (Path(folder) / library / CANN_LIBRARY).is_file():
                return Path(folder)
    looked = ", ".join(f"`{folder}`" for folder in (*named, *CANN_FOLDERS))
    raise fail(
        "E501",
        f"Ascend needs the CANN libraries, and there is no {CANN_LIBRARY} of theirs in {looked}",
        help="install Huawei's CANN toolkit and source its `set_env.sh`, which sets "
        f"{CANN_VARIABLES[0]};\nwithout it `-t mindspore-lite` makes a model for the CPU",
    )


def require_options(target: Target) -> None:
    """`encrypt` and `quant`, and the key where there is to be one.

    Raises:
        InfcError: E205 for a value or a combination that makes no sense, E706 without a key.
    """
    encrypt = choice(target, "encrypt", ("off", "aes-gcm"), "off")
    if target.options.get("quant") == "weight":
        raise fail(
            "E205",
            "`-X quant=weight`: MindSpore Lite's runtime does not load what its converter makes "
            "of that",
            help="`full` quantises activations too, `dynamic` the weights of MatMul, `--precision "
            "fp16` halves all weights",
        )
    quant = choice(target, "quant", QUANT, "full")
    if quant == "dynamic" and target.precision is not Precision.INT8:
        raise fail("E205", "`-X quant=dynamic` is for int8", help="add `--precision int8`")
    if encrypt != "off":
        _seal(b"", target)
    elif "key-file" in target.secrets:
        raise fail("E205", "`-X key-file=` without encryption", help="add `-X encrypt=aes-gcm`")


def legalize(model: ir.Model, target: Target) -> None:
    """Rewrite what the converter or the runtime gets wrong."""
    from infc.targets.mindspore_lite_lowering import lower

    lower(model)


def check(model: Path, target: Target) -> Sequence[Unsupported]:
    """Every node that the converter refuses or is known to get wrong."""
    import onnx_ir as ir

    from infc.targets.mindspore_lite_operators import lost_halves, unsupported

    graph = ir.load(model)
    rows = unsupported(graph)
    if target.precision is Precision.FP16:
        rows += lost_halves(graph)
    return [Unsupported(*row) for row in rows]


def samples(target: Target) -> int:
    """How many calibration samples the converter is given at most."""
    full = target.options.get("quant", "full") == "full"
    return CALIBRATION_SAMPLES if full and target.precision is Precision.INT8 else 0


def build(job: BuildJob) -> Artifact:
    """By the vendor's converter; the wheel's is `mindspore_lite_worker.build`, in the toolchain."""
    from infc.targets import mindspore_lite_worker as wheel

    payload = {
        "target": job.target.to_json(),
        "inputs": [spec.to_json() for spec in job.inputs],
        "calibration": [str(folder) for folder in job.calibration],
    }
    notes = vendor.convert(job, wheel.quantization(payload))
    notes = {"verified_on": wheel.device(payload), **notes, **wheel.quantized(payload)}
    return Artifact(wheel.ARTIFACT, (wheel.ARTIFACT,), notes)


def open(job: RunJob) -> Runner:
    """Not here: `mindspore_lite_worker.run`, in the toolchain."""
    raise NotImplementedError


def release(entry: Path) -> str:
    """Which release's converter wrote the file `entry`."""
    return vendor.release_of(entry.read_bytes())


def device(target: Target) -> str:
    """The CPU stands in for a phone's chips: the wheel has no other kernels."""
    return "ASCEND" if target.device == "ASCEND" else "CPU"


def _wants_seal(target: Target) -> bool:
    return target.options.get("encrypt", "off") != "off"


def _seal(plain: bytes, target: Target) -> bytes:
    from infc.targets.mindspore_lite_encryption import encrypt

    return encrypt(plain, read_key(target.secrets.get("key-file", "")))


def _unseal(sealed: bytes, target: Target) -> bytes:
    from infc.targets.mindspore_lite_encryption import decrypt

    return decrypt(sealed, read_key(target.secrets.get("key-file", "")))


SEAL = Seal(_wants_seal, _seal, _unseal, frozenset({"key-file"}))


def _package() -> Path | None:
    """The folder of the wheel in the toolchain: headers and libraries are in it."""
    found = sorted(toolchain_folder(TOOLCHAIN).glob("lib/python3*/site-packages/mindspore_lite"))
    return found[0] if found else None


def _archive() -> Path | None:
    """The vendor's archive, where MSLITE_HOME names one that has a runtime to link with."""
    archive = vendor.archive()
    library = archive / "runtime" / "lib" / "libmindspore-lite.so" if archive else None
    return archive if library is not None and library.is_file() else None


def _sdk() -> dict[str, str]:
    """CMake's MINDSPORE_LITE_ROOT: the vendor's archive, else the wheel.

    Raises:
        InfcError: E501 where there is neither.
    """
    package = _archive() or _package()
    if package is None:
        raise fail(
            "E501",
            "the headers and libraries of MindSpore Lite were not found",
            help=f"infc toolchain install {TOOLCHAIN}",
        )
    return {"MINDSPORE_LITE_ROOT": str(package)}


def _library_path() -> list[Path]:
    archive, package = _archive(), _package()
    if archive is not None:
        return [archive / "runtime" / name for name in ("lib", "third_party/glog")]
    return [package / "lib"] if package else []


LOADER = LoaderSpec("mindspore_lite", _sdk, _library_path)
