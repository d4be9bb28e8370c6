"""Models of other frameworks, made ONNX by the framework's own exporter, in a worker.

The worker's action `import` takes

    {"path": PATH | "package.module:factory", "kind": Kind.name, "options": ImportOptions,
     "home": FOLDER,                         where the user is: for what is relative in the above
     "inputs": [{"name", "dtype": "" | DTYPE, "dims": [{"name", "low", "typical", "high"}, ...]}],
     "output": FOLDER}

writes `FOLDER/model.onnx`, in which inputs, outputs and dynamic dimensions have the user's names,
and answers

    {"exporter": "torch.export",            which one was used
     "versions": {"torch": "2.13.0"},        of what had a part in it
     "entry": PATH,                          what `open` runs for the reference: the source itself,
                                             or a file in FOLDER
     "options": {},                          text for `open`, in `job.target.options`
     "notes": [Diagnostic, ...]}             warnings and notes for the user

It raises `InfcError`: E111 for what cannot be exported, E113 for what would run code, E114 for what
the framework cannot load, E115 for an input without a shape, E116 for an unsafe archive.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path

from infc import workers
from infc.diagnostics import Diagnostic, InfcError, fail
from infc.frontends import Origin, Reading, Reference, Source, containers, onnx
from infc.frontends.frameworks import Framework, worker_of
from infc.frontends.sniff import Kind
from infc.input_spec import InputSpec
from infc.user_code import is_users

MODEL = "model.onnx"
CRASH = "crash.txt"
"""Where Python's stack is left when native code crashes, innermost first (`faulthandler`)."""
_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+) in (?P<function>\S+)')


def load(
    path: Path, kind: Kind, framework: Framework, inputs: Sequence[InputSpec], how: Reading
) -> Source:
    """Export `path` and read the result; its reference is the model in its own framework.

    Raises:
        InfcError: E501 where the framework is missing, E111 to E116, and E112 where what the
            exporter wrote is no valid ONNX.
    """
    worker = worker_of(framework, how.toolchains)
    folder = (how.scratch / "import").resolve()
    folder.mkdir(parents=True)
    document = {
        "path": str(path) if kind is Kind.PYTHON else str(path.resolve()),
        "kind": kind.name,
        "home": str(Path.cwd()),
        "options": {**how.options.to_json(), "allow_pickle": how.options.allow_pickle},
        "inputs": [asdict(spec) for spec in inputs],
        "output": str(folder),
    }
    what = f"`{framework.name}` while exporting the model"
    call = workers.Call(
        framework.module, "import", document, folder / "run", how.scratch / "log", what, worker
    )
    try:
        answer = workers.call(call, how.limits)
    except InfcError as error:
        raise _placed(error, folder / CRASH) from error
    exported = folder / MODEL
    try:
        source = onnx.load(exported, inputs)
    except InfcError as error:
        raise _invalid(path, answer["exporter"], error) from error
    return replace(
        source,
        path=path,
        kind=kind.name.lower().replace("_", "-"),
        digest=source.digest if kind is Kind.PYTHON else cache(lambda: _digest(path, kind)),
        reference=Reference(
            framework.module, Path(answer["entry"]), dict(answer["options"]), worker
        ),
        notes=(*map(Diagnostic.from_json, answer["notes"]), *source.notes),
        origin=Origin(
            framework.name,
            answer["exporter"],
            dict(sorted(answer["versions"].items())),
            how.options.to_json(),
            exported,
        ),
    )


def _placed(error: InfcError, crash: Path) -> InfcError:
    """A crash with the user's own line that it came from, where there is one."""
    first, *rest = error.diagnostics
    if first.code != "E502" or first.where or not crash.exists():
        return error
    for frame in _FRAME.finditer(crash.read_text(encoding="utf-8", errors="replace")):
        if is_users(frame["file"]):
            place = f"{Path(frame['file']).name}:{frame['line']} in {frame['function']}"
            return InfcError(replace(first, where=place), *rest)
    return error


def _invalid(path: Path, exporter: str, error: InfcError) -> InfcError:
    """What the exporter wrote does not hold water; what concerns the user's words stays theirs."""
    if all(d.code in ("E106", "E108") for d in error.diagnostics):
        return InfcError(*(replace(d, where="") for d in error.diagnostics))
    found = tuple(f"{d.message} ({d.where})" if d.where else d.message for d in error.diagnostics)
    return fail(
        "E112",
        f"`{exporter}` left no valid ONNX of `{path}`",
        notes=found,
        help="the model computes in bfloat16: let it compute in float32, and export that"
        if any("bfloat16" in text for text in found)
        else "another version of the exporter may do better; `infc explain E112` has more",
    )


def _digest(path: Path, kind: Kind) -> str:
    """The SHA-256 of the file, or of all files that the model lies in."""
    files = containers.files_of(path, kind)
    if files == [path]:
        return _sha256(path)
    folder = path if path.is_dir() else path.parent
    whole = hashlib.sha256()
    for file in files:
        name = file.relative_to(folder).as_posix().encode()
        whole.update(len(name).to_bytes(8, "little") + name + bytes.fromhex(_sha256(file)))
    return whole.hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
