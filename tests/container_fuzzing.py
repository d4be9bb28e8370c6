"""Mutations of the containers of other frameworks, and what infc makes of each.

Bytes are mutated as in `fuzzing`; deeper parsers are reached by mutating what is inside: an entry
of a zip archive, whose checksums are then right again; a value in JSON; a field of a message.
"""

from __future__ import annotations

import io
import json
import random
import traceback
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import container_files

from infc.frontends import guarded

ODD_VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 2**31, 2**63, 2**70, 1e308, "", "x", "../../x", [], {}, [[]], {"a": []}),
    *([-1], ["x", 0, 0], "\ud800", "a" * 10_000, {"class_name": "Lambda", "config": {}}),
)
MESSAGES = {
    "saved-model-file": "SavedModel",
    "graph-def": "GraphDef",
    "real-graph-def": "GraphDef",
}
REAL = {
    "real-tflite": "mlperf_tiny/ad01_int8.tflite",
    "real-graph-def": "fsrcnn/FSRCNN-small_x2.pb",
    "real-h5": "hand_keypoint/keypoint_classifier.hdf5",
    "real-checkpoint": "dtln/dtln_saved_model/variables/variables.index",
}
"""Of the folder of real models."""
NAMES = (*container_files.SINGLE_FILES, *REAL)

Mutation = Callable[[bytearray, random.Random], None]


@cache
def seed_of(name: str, models: Path) -> bytes:
    """The bytes that are mutated; written in a child, so that torch stays out of this process."""
    import tempfile

    if name in REAL:
        return (models / REAL[name]).read_bytes()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder)
        return guarded.call(lambda: container_files.write(name, path).read_bytes(), 300, 64 << 30)


def mutate(name: str, data: bytes, rng: random.Random, bytewise: Callable[[bytes], bytes]) -> bytes:
    """One mutated file; `bytewise` mutates any bytes."""
    chance = rng.random()
    if data.startswith(b"PK") and chance < 0.7:
        return _in_archive(data, rng, bytewise)
    if name == "safetensors" and chance < 0.6:
        size = int.from_bytes(data[:8], "little")
        header = _in_json(data[8 : 8 + size], rng)
        return len(header).to_bytes(8, "little") + header + data[8 + size :]
    if name in MESSAGES and chance < 0.6:
        return _in_message(name, data, rng)
    return bytewise(data)


def _in_archive(data: bytes, rng: random.Random, bytewise: Callable[[bytes], bytes]) -> bytes:
    """The archive with one entry mutated, dropped, renamed or given twice."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(out, "w") as target:
        rows = [(info.filename, source.read(info)) for info in source.infolist()]
        small = [row for row in rows if not row[0].split("/")[-1].isdecimal()] or rows
        chosen, content = rng.choice(small)
        action = rng.choice(("mutate",) * 12 + ("drop", "rename", "swap", "grow"))
        for name, old in rows:
            if name != chosen:
                target.writestr(name, old)
            elif action == "mutate":
                target.writestr(name, _inner(name, content, rng, bytewise))
            elif action == "swap":
                target.writestr(name, rng.choice(rows)[1])
            elif action == "grow":
                target.writestr(name, content + bytes(1000))
            elif action == "rename":
                others = ("x", "../x", f"{name}x", "other/data.pkl", "/x")
                target.writestr(rng.choice(others), content)
    return out.getvalue()


def _inner(
    name: str, content: bytes, rng: random.Random, bytewise: Callable[[bytes], bytes]
) -> bytes:
    if name.endswith(".json") and rng.random() < 0.8:
        return _in_json(content, rng)
    if content.startswith(b"PK"):
        return _in_archive(content, rng, bytewise)
    return bytewise(content)


def _in_json(content: bytes, rng: random.Random) -> bytes:
    """A value replaced, a key dropped or renamed, a list made longer."""
    document = json.loads(content)
    holders = list(_holders(document))
    for _ in range(rng.choice((1, 1, 2, 4))):
        holder = rng.choice(holders)
        keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
        if not keys:
            continue
        key, action = rng.choice(keys), rng.random()
        if action < 0.7:
            holder[key] = rng.choice(ODD_VALUES)
        elif action < 0.85:
            del holder[key]
        elif isinstance(holder, dict):
            holder[rng.choice(("x", "", "config"))] = holder[key]
        else:
            holder.append(holder[key])
    return json.dumps(document).encode("utf-8", "surrogatepass")


def _holders(document: Any) -> list[Any]:
    found, pending = [], [document]
    while pending:
        value = pending.pop()
        if isinstance(value, (dict, list)):
            found.append(value)
            pending += value.values() if isinstance(value, dict) else value
    return found


def _in_message(name: str, data: bytes, rng: random.Random) -> bytes:
    from fuzzing import MESSAGE_MUTATIONS, messages_in

    from infc.frontends.containers import tensorflow_messages

    message = tensorflow_messages.message(MESSAGES[name]).FromString(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        rows = list(messages_in(message))
        rng.choice(MESSAGE_MUTATIONS)(rng.choice(rows), rows, rng)
    return bytes(message.SerializeToString())


def run_case(path: Path) -> tuple[str, str]:
    """(outcome, detail) of `infc inspect` and of the checks before an import."""
    from infc import inspection
    from infc.diagnostics import InfcError
    from infc.frontends import containers
    from infc.frontends.containers import hdf5
    from infc.frontends.sniff import sniff
    from infc.results import inspections

    hdf5.CPU_S = 1  # the library goes round in circles on some of them
    try:
        output = inspections.inspected(inspection.inspect(path))
        json.dumps(output.document, ensure_ascii=False).encode()
        output.text.encode()
        for allowed in (True, False):
            containers.require_sound(path, sniff(path), allow_pickle=allowed)
    except InfcError as error:
        if len(error.diagnostics) != 1:
            return "exception", f"{len(error.diagnostics)} diagnostics"
        error.diagnostics[0].render().encode()
        return error.diagnostics[0].code, error.diagnostics[0].message
    except BaseException as error:
        frames = traceback.extract_tb(error.__traceback__)
        last = [f"{Path(f.filename).name}:{f.lineno}" for f in frames[-3:]]
        return "exception", f"{type(error).__name__}: {str(error)[:200]} at {' < '.join(last)}"
    return "ok", ""
