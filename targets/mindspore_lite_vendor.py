"""The vendor's own converter, `converter_lite` of a MindSpore Lite 2.x archive, where it is there.

    mindspore-lite-2.x.y-linux-x64/                     MSLITE_HOME
      tools/converter/converter/converter_lite          or on PATH
      tools/converter/lib/                              what it is linked with
      runtime/lib/libmindspore-lite.so                  what its artifacts are run by

It is preferred to the wheel's, being of any release. It takes the wheel's configuration, as a file;
what it is asked for beyond the flags of every release is asked of its own `--help`, since builds
differ: one with encryption would encrypt unasked.

Source: mindspore/lite/tools/converter/converter_lite/converter_flags.cc, main.cc (2.0 to 2.3).
"""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from infc.targets import BackEndError, BuildJob

CONVERTER = "converter_lite"
HOME_VARIABLE = "MSLITE_HOME"
PLACE = Path("tools") / "converter" / "converter" / CONVERTER
IDENTIFIER = b"MSL2"
FIRST_RELEASE = "2.0.0"
_VERSION = re.compile(r"\d+\.\d+\.\d+\w*")
FLAGS = {
    "saveType": "MINDIR_LITE",  # the cloud builds' default is another format
    "encryption": "false",  # infc encrypts, with a nonce that is the same in every build
}
"""Flags that not every build has, and what they are set to."""


def find() -> Path | None:
    """The converter: of MSLITE_HOME, else on PATH; None where there is none."""
    home = os.environ.get(HOME_VARIABLE)
    if home and os.access(Path(home) / PLACE, os.X_OK):
        return (Path(home) / PLACE).absolute()
    found = shutil.which(CONVERTER)
    return Path(found).absolute() if found else None


def archive() -> Path | None:
    """The folder of the archive, where there is one: MSLITE_HOME, else where the converter lies."""
    home = os.environ.get(HOME_VARIABLE)
    if home:
        return Path(home)
    converter = find()
    inside = converter is not None and converter.parts[-len(PLACE.parts) :] == PLACE.parts
    return converter.parents[len(PLACE.parts) - 1] if converter and inside else None


def convert(job: BuildJob, sections: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    """Write `model.ms` into the job's folder; return the notes for the manifest.

    `sections` are those of the configuration file (`mindspore_lite_worker.quantization`).

    Raises:
        BackEndError: the converter refused, or wrote no model.
    """
    converter = find()
    if converter is None:
        raise BackEndError(f"`{CONVERTER}` is gone")
    artifact = job.output / "model.ms"
    arguments = {
        "fmk": "ONNX",
        "modelFile": str(job.model),
        "outputFile": str(artifact.with_suffix("")),
        "inputDataFormat": "NCHW",
        "fp16": "on" if job.target.precision == "fp16" else "off",
        **{k: v for k, v in FLAGS.items() if f"--{k}" in _run(converter, "--help")[1]},
    }
    if job.target.device == "ASCEND":
        arguments["optimize"] = "ascend_oriented"
    if sections:
        arguments["configFile"] = str(_write(sections, Path("converter.cfg").absolute()))
    status, said = _run(converter, *(f"--{k}={v}" for k, v in arguments.items()))
    print(said)  # noqa: T201  standard output is the log
    if status or not artifact.is_file():
        raise BackEndError(_reason(said, f"`{CONVERTER}` ended with status {status}"))
    artifact.chmod(0o644)
    release = release_of(artifact.read_bytes())
    return {"converter": CONVERTER, "versions": {"mindspore-lite": release}}


def release_of(model: bytes) -> str:
    """The release whose converter wrote the bytes of a `.ms` file: "2.3.0".

    Some write it into the file; else it is in the name of the archive, as it is unpacked. Where
    neither says, it is the first of the releases that write this format.

    Raises:
        BackEndError: it is no such file.
    """
    written = _VERSION.search(_second_field(model))
    folder = archive()
    named = _VERSION.search(folder.name) if folder else None
    found = written or named
    return found[0] if found else FIRST_RELEASE


def _second_field(model: bytes) -> str:
    """`version` of the table `MetaGraph`, a string as "MindSpore Lite 2.3.0"; "" where it is not.

    Source: mindspore/lite/schema/model.fbs; flatbuffers' binary format.
    """
    try:
        if model[4:8] != IDENTIFIER:
            raise ValueError("identifier")
        (root,) = struct.unpack_from("<I", model, 0)
        (back,) = struct.unpack_from("<i", model, root)
        (size,) = struct.unpack_from("<H", model, root - back)
        (field,) = struct.unpack_from("<H", model, root - back + 6) if size > 6 else (0,)
        if not field:
            return ""
        (offset,) = struct.unpack_from("<I", model, root + field)
        start = root + field + offset
        (length,) = struct.unpack_from("<I", model, start)
        return model[start + 4 : start + 4 + length].decode("ascii")
    except (ValueError, struct.error) as error:
        raise BackEndError(f"`{CONVERTER}` wrote a file that is no MindSpore Lite model") from error


def _run(converter: Path, *arguments: str) -> tuple[int, str]:
    """The exit status, and all that it said."""
    libraries = converter.parent.parent / "lib"
    others = os.environ.get("LD_LIBRARY_PATH", "")
    environment = {
        **os.environ,
        "LD_LIBRARY_PATH": os.pathsep.join([str(libraries), *filter(None, [others])]),
    }
    done = subprocess.run(
        [str(converter), *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=environment,
        check=False,
    )
    return done.returncode, done.stdout


def _write(sections: Mapping[str, Mapping[str, str]], path: Path) -> Path:
    lines = []
    for section, values in sections.items():
        lines += [f"[{section}]", *(f"{key}={value}" for key, value in values.items()), ""]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def _reason(said: str, otherwise: str) -> str:
    """The first error in its log, which is the cause."""
    lines = [line for line in said.splitlines() if "[ERROR]" in line or "Failed" in line]
    return lines[0].strip()[:400] if lines else otherwise
