"""Diagnostics: one shape for everything infc has to say about a failure.

A diagnostic has a code that never changes meaning, the place in the model it is about, and what
to do. The first digit of the code names the stage, and with it the exit code of the process:

    E1xx frontend   E2xx target support   E3xx pass   E4xx quantisation
    E5xx toolchain  E6xx verification     E7xx bundle and loader

The rendering follows rustc's: ``error[E203]: message``, then ``-->`` and ``help:`` lines.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum, StrEnum
from typing import Any


class ExitCode(IntEnum):
    """What the process reports to its caller."""

    DONE = 0
    BUILD_FAILED = 1
    USAGE = 2
    VERIFICATION_FAILED = 3
    TOOLCHAIN_MISSING = 4


class Severity(StrEnum):
    """How much a diagnostic matters: only an error stops the build."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Code:
    """A row of the table: `title` is the one-line meaning, `explanation` the paragraph."""

    id: str
    title: str
    exit_code: ExitCode
    explanation: str


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One thing to tell the user.

    `where` is a place as `file:graph/node (Op-version)`, several of them a line each; `notes` are
    further facts, such as the last lines of a worker's log; `help` says what to do.
    """

    code: str
    message: str
    where: str = ""
    help: str = ""
    notes: tuple[str, ...] = ()
    severity: Severity = Severity.ERROR

    def __post_init__(self) -> None:
        if self.code not in CODES:
            raise KeyError(f"diagnostic code {self.code} is not in the table")

    @property
    def exit_code(self) -> ExitCode:
        """The exit code of a process that stops because of this diagnostic."""
        return CODES[self.code].exit_code

    def render(self, *, color: bool = False) -> str:
        """Text for stderr, several lines, no trailing newline; `color` is for terminals."""

        def paint(style: str, text: str) -> str:
            return f"\x1b[{style}m{text}\x1b[0m" if color else text

        title = paint(_STYLES[self.severity], f"{self.severity}[{self.code}]")
        headline, *rest = printable(self.message).splitlines() or [""]
        lines = [f"{title}: {paint(_BOLD, headline)}", *(f"  {line}" for line in rest)]
        places = printable(self.where).splitlines()
        lines.extend(f"  {paint(_BLUE, '-->')} {place}" for place in places)
        labelled = [("note", note) for note in self.notes]
        labelled += [("help", self.help)] if self.help else []
        for label, text in labelled:
            head, *rest = printable(text).splitlines() or [""]
            lines.append(f"  {paint(_BLUE, f'{label}:')} {head}")
            lines.extend(f"        {line}" for line in rest)
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """A plain dict for ``--json`` and the manifest."""
        return {
            "code": self.code,
            "severity": str(self.severity),
            "message": self.message,
            "where": self.where,
            "help": self.help,
            "notes": list(self.notes),
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Diagnostic:
        """The inverse of `to_json`."""
        severity = Severity(data["severity"])
        return cls(**{**data, "notes": tuple(data["notes"]), "severity": severity})


_BOLD, _BLUE = "1", "1;34"
_STYLES = {Severity.ERROR: "1;31", Severity.WARNING: "1;33", Severity.NOTE: "1;36"}
"""ANSI select-graphic-rendition parameters."""

MAX_PLACES = 5
"""A warning names this many of its places; an error names them all."""


def merged(diagnostics: Iterable[Diagnostic]) -> list[Diagnostic]:
    """One diagnostic for each cause, in order of appearance.

    Those that differ in nothing but the place become one that lists the places.
    """
    places: dict[Diagnostic, list[str]] = {}
    for diagnostic in diagnostics:
        found = places.setdefault(replace(diagnostic, where=""), [])
        if diagnostic.where and diagnostic.where not in found:
            found.append(diagnostic.where)
    return [replace(c, where="\n".join(_shown(c, where))) for c, where in places.items()]


def _shown(cause: Diagnostic, places: list[str]) -> list[str]:
    if cause.severity is Severity.ERROR or len(places) <= MAX_PLACES:
        return places
    return [*places[:MAX_PLACES], f"and {len(places) - MAX_PLACES} more places"]


def printable(text: str) -> str:
    """`text` without what could steer a terminal: names come from untrusted files."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text)


class InfcError(Exception):
    """Stops the current target (or the whole command) with one or more diagnostics."""

    def __init__(self, *diagnostics: Diagnostic) -> None:
        super().__init__("\n".join(d.render() for d in diagnostics))
        self.diagnostics = diagnostics

    @property
    def exit_code(self) -> ExitCode:
        """Of the first diagnostic: they are of one stage."""
        return self.diagnostics[0].exit_code if self.diagnostics else ExitCode.BUILD_FAILED


def fail(
    code: str,
    message: str,
    *,
    where: str = "",
    help: str = "",
    notes: Iterable[str] = (),
) -> InfcError:
    """Return an error with a single diagnostic, to be raised by the caller."""
    return InfcError(Diagnostic(code, message, where, help, tuple(notes)))


def internal_error(error: Exception) -> Diagnostic:
    """E300 for an exception that nobody foresaw, with the last place in infc's own code."""
    import traceback
    from pathlib import Path

    frames = traceback.extract_tb(error.__traceback__)
    package = Path(__file__).parent.parent
    own = [f for f in frames if Path(f.filename).is_relative_to(package)] or frames
    where = f"{Path(own[-1].filename).name}:{own[-1].lineno} in {own[-1].name}" if own else ""
    return Diagnostic(
        "E300",
        f"internal error: {type(error).__name__}: {error}",
        where=where,
        help="this is a bug in infc: please report it; `--traceback` shows where it arose",
    )


def combined_exit_code(codes: Sequence[ExitCode]) -> ExitCode:
    """The exit code of a command with several targets: theirs where they agree, else 1."""
    failures = {c for c in codes if c != ExitCode.DONE}
    if not failures:
        return ExitCode.DONE
    return failures.pop() if len(failures) == 1 else ExitCode.BUILD_FAILED


_TABLE = (
    Code(
        "E100",
        "the model file cannot be read",
        ExitCode.BUILD_FAILED,
        "The path does not exist, is a directory, or may not be read by this user. Nothing was "
        "written. Check the path and the permissions.",
    ),
    Code(
        "E101",
        "the file is not a model infc knows",
        ExitCode.BUILD_FAILED,
        "infc decides what a file is from its bytes, never from its name, and executes nothing "
        "while it does so. The bytes here match none of the formats it reads. An empty file, a "
        "Git LFS pointer or an HTML error page under the model's name are the usual causes.",
    ),
    Code(
        "E102",
        "the ONNX file is malformed",
        ExitCode.BUILD_FAILED,
        "The protobuf does not parse, or parses into something that is not a valid ONNX graph. "
        "A truncated download is the usual cause; the offset or the node is named where it is "
        "known.",
    ),
    Code(
        "E103",
        "external data is missing or unusable",
        ExitCode.BUILD_FAILED,
        "The model keeps weights in other files. Those must lie in the model's own folder or "
        "below it, be regular files (a symbolic link that leads out of the folder is refused), "
        "and hold as many bytes as the tensor needs. A model file is untrusted input: infc "
        "never reads a path outside the model's folder on its behalf.",
    ),
    Code(
        "E104",
        "the graph is not well formed",
        ExitCode.BUILD_FAILED,
        "A node reads a value that nothing produces, two nodes produce the same value, the graph "
        "has a cycle, an initializer has the wrong size, or types do not fit. ONNX Runtime would "
        "refuse the same graph; infc names the node.",
    ),
    Code(
        "E105",
        "the IR version or opset is outside the supported range",
        ExitCode.BUILD_FAILED,
        "infc reads ONNX IR version 3 and later with opset 7 and later of the default domain. "
        "Older models can be converted with onnx.version_converter.",
    ),
    Code(
        "E106",
        "`--input` does not fit the model",
        ExitCode.USAGE,
        "`--input NAME=SHAPE` names an input that the model does not have, gives it another "
        "rank, or contradicts a dimension that the model fixes. `infc inspect MODEL` lists the "
        "inputs.",
    ),
    Code(
        "E107",
        "the source model itself does not run",
        ExitCode.BUILD_FAILED,
        "Verification needs the source model's own answer as the reference, and its framework "
        "refused to run it: the model is broken, needs inputs of a particular kind, or uses an "
        "operator its framework lacks. `--no-verify` skips it; the bundle then says so.",
    ),
    Code(
        "E108",
        "an input or output cannot cross the loader interface",
        ExitCode.BUILD_FAILED,
        "A bundle's C interface passes dense tensors of plain numbers. Strings, sequences, "
        "optionals, maps, sparse tensors, complex numbers and types of less than a byte may be "
        "used inside the model but not at its inputs and outputs.",
    ),
    Code(
        "E109",
        "inputs with a default value are treated as constants",
        ExitCode.BUILD_FAILED,
        "From ONNX IR version 4 on, an initializer that is also listed as an input is an input "
        "with a default. Most exporters that write such files list every weight, so infc makes "
        "constants of them and says so in a note. `--input NAME=SHAPE` keeps one as an input, "
        "then without a default.",
    ),
    Code(
        "E110",
        "bad usage",
        ExitCode.USAGE,
        "The command line or the Python call asks for something that does not exist or "
        "contradicts itself.",
    ),
    Code(
        "E111",
        "the model cannot be exported to ONNX",
        ExitCode.BUILD_FAILED,
        "The framework's own exporter makes ONNX of what is not ONNX, and here it could not: an "
        "operation that has no counterpart, control flow that depends on values, an operator of "
        "a third party. The message is the exporter's, the place the operation's.",
    ),
    Code(
        "E112",
        "the exported graph is not the model",
        ExitCode.VERIFICATION_FAILED,
        "What an exporter writes is checked, run in ONNX Runtime with nothing optimised, and "
        "compared with the model in its own framework, before anything else is done with it. "
        "Exporters are known to write invalid graphs, and graphs with other answers, and to "
        "report success. Nothing of infc's own has touched the graph at this point: another "
        "version of the exporter or of the framework is what helps, or the exporter that the "
        "note names.",
    ),
    Code(
        "E113",
        "loading the file would run code from it",
        ExitCode.BUILD_FAILED,
        "A pickle names functions that are called when it is loaded, and may name any. infc reads "
        "the names without loading anything, and goes on only where all of them belong to plain "
        "tensors. For a file from someone whom you would let run programs on this machine there "
        "is `--allow-pickle`. Better is a file without code: `torch.export.save`, a `state_dict`, "
        "safetensors.",
    ),
    Code(
        "E114",
        "the framework cannot load the model",
        ExitCode.BUILD_FAILED,
        "The file is what it seems to be, and its framework refuses it all the same: it was "
        "written by another version, needs classes that are not there, has no signature to call, "
        "or is damaged inside. For Python code that makes a model, it is that code that raised.",
    ),
    Code(
        "E115",
        "an input needs a shape",
        ExitCode.USAGE,
        "The model is exported by running it, and neither the file nor the code says on what. "
        "`--input NAME=SHAPE` does, with dimensions that may vary as `1..8` or by a name, and "
        "with the element type where it is not float32: `--input ids=batchx128:int64`.",
    ),
    Code(
        "E116",
        "the archive is not safe to open",
        ExitCode.BUILD_FAILED,
        "An entry of the archive would be written outside its folder, unpacks into far more bytes "
        "than it takes, or stands in it twice. Nothing was extracted. No framework writes such "
        "files.",
    ),
    Code(
        "E117",
        "the file is damaged",
        ExitCode.BUILD_FAILED,
        "What the file says of itself does not hold: it ends before its parts do, an offset leads "
        "out of it, a part has the wrong form. A truncated download or an interrupted export is "
        "the usual cause. Nothing was loaded.",
    ),
    Code(
        "E201",
        "unknown target",
        ExitCode.USAGE,
        "`--target` takes a profile or a back end's own name; `infc targets` lists both, and "
        "`infc targets NAME` shows what one of them can do.",
    ),
    Code(
        "E203",
        "an operator is not supported by the back end",
        ExitCode.BUILD_FAILED,
        "The back end was asked about every node before anything was built; each node it cannot "
        "take is listed. Compile for another back end, or replace the operator in the model.",
    ),
    Code(
        "E204",
        "the back end refuses the model",
        ExitCode.BUILD_FAILED,
        "The back end's own compiler reported an error that is not about a single operator. Its "
        "message is given unchanged.",
    ),
    Code(
        "E205",
        "the target cannot do what was asked",
        ExitCode.USAGE,
        "A precision, option or artifact form was asked for that this target does not offer. "
        "`infc targets NAME` lists what it does offer.",
    ),
    Code(
        "E206",
        "a dynamic dimension has no range",
        ExitCode.USAGE,
        "The back end chooses its kernels for a range of shapes: each dynamic dimension needs its "
        "least, typical and greatest value. `--input NAME=1..8@4x3x224x224` gives them (or fixes "
        "the dimension), `-X profiles=` gives several. A first dimension that nothing is said of "
        "is taken for a batch of 1 to 16.",
    ),
    Code(
        "E207",
        "a dimension has to be fixed",
        ExitCode.USAGE,
        "The back end plans all memory when it compiles, so that nothing is decided, or allocated, "
        "when the model runs: every dimension has to be a number. `--input NAME=1x3x224x224` "
        "fixes those of an input. For several sizes compile several bundles.",
    ),
    Code(
        "E208",
        "the model does not fit the memory that it may take",
        ExitCode.BUILD_FAILED,
        "All memory of the artifact is planned when it compiles, and the plan takes more than "
        "`-X memory=` allows, or more than the processor has addresses for. The plan holds what is "
        "computed between the layers, the inputs and outputs, and a table of them; the weights are "
        "not in it. Smaller inputs, or a batch of 1, take less.",
    ),
    Code(
        "E209",
        "the tuning database cannot be used",
        ExitCode.BUILD_FAILED,
        "A tuning database is the JSON file that `infc tune` keeps in INFC_HOME, or writes with "
        "`infc tune export`. This one is missing, damaged, of another version, for another "
        "processor, or made with another release of TVM, whose kernels are others. Nothing of it "
        "was used. `infc tune show FILE` says what a database is for.",
    ),
    Code(
        "E210",
        "a tuning database was given and has no record for the model",
        ExitCode.BUILD_FAILED,
        "Records are found by what a kernel computes, on which shapes and types. None of the "
        "database's is for a kernel of this model, so that all of them are computed as the rules "
        "say. Most likely the database was made for another model, for inputs of another size "
        "(`--input`), or at another precision.",
    ),
    Code(
        "E300",
        "internal error",
        ExitCode.BUILD_FAILED,
        "infc met something that its authors did not foresee. That is a bug in infc, whatever the "
        "input: please report it with the command, the model if it can be shared, and the output "
        "of the same command with `--traceback`. Nothing half-made was left behind.",
    ),
    Code(
        "E301",
        "a pass failed",
        ExitCode.BUILD_FAILED,
        "An optimisation pass raised an error or produced an invalid graph. That is a bug in "
        "infc: please report it with the model or with the output of `--dump-after`. The build "
        "can go on with `--disable-pass NAME`.",
    ),
    Code(
        "E302",
        "unknown pass",
        ExitCode.USAGE,
        "`--disable-pass` or `--dump-after` names a pass that does not exist; `infc passes` "
        "lists them.",
    ),
    Code(
        "E303",
        "pruning went wrong",
        ExitCode.BUILD_FAILED,
        "A channel that is removed has to leave what setting its weights to zero leaves. Both were "
        "run, and the graph with the smaller weights answers otherwise than the one with the "
        "zeros. That is a bug in infc, not in the model: please report it, and leave `--prune` out "
        "meanwhile.",
    ),
    Code(
        "E401",
        "there is no such calibration data",
        ExitCode.BUILD_FAILED,
        "`--calibration` names a `.npz`, `.npy` or `.csv` file, a folder of `.npy`, `.npz` or "
        "photos, or a function as `package.module:function` or `file.py:function`. What it "
        "names here does not exist, is of another kind, is empty, or holds fewer samples than "
        "one run of the model takes.",
    ),
    Code(
        "E402",
        "a calibration file cannot be read",
        ExitCode.BUILD_FAILED,
        "The file is cut short, damaged, larger than any sample can be, or holds pickled Python "
        "objects. infc reads arrays of numbers, photos and text; it unpickles nothing, since "
        "that would run whatever code the file holds.",
    ),
    Code(
        "E403",
        "a calibration sample has the wrong shape",
        ExitCode.BUILD_FAILED,
        "A sample has the shape of the model's input, with or without the batch dimension. "
        "Where the input's dimensions are dynamic, samples may differ from each other. Photos "
        "get their size from `--preprocess resize=HEIGHTxWIDTH`, and the order of their "
        "channels from `layout=`.",
    ),
    Code(
        "E404",
        "a calibration sample has the wrong element type",
        ExitCode.BUILD_FAILED,
        "Floats are rounded to the input's precision, and integers that fit become floats. A "
        "float for an integer input, text, and values outside the input's type are refused, "
        "since converting them would change their meaning.",
    ),
    Code(
        "E405",
        "calibration data and the model's inputs do not match",
        ExitCode.BUILD_FAILED,
        "Every input needs a value in each sample, under the input's own name: `infc inspect "
        "MODEL` lists them. Photos, tables and single arrays can only feed a model with one "
        "input.",
    ),
    Code(
        "E406",
        "a calibration sample holds NaN or Inf",
        ExitCode.BUILD_FAILED,
        "A range that is measured on NaN or Inf says nothing. The sample and the first such "
        "element are named; mend the data or leave the sample out.",
    ),
    Code(
        "E407",
        "the calibration function failed",
        ExitCode.BUILD_FAILED,
        "The function raised an error, gave no sample, or gave something that is not a sequence "
        "of samples. It takes no argument and yields dicts of arrays named after the inputs, "
        "tuples in their order, or single arrays. The line of the user's own code is given.",
    ),
    Code(
        "E408",
        "an input is the same in all calibration samples",
        ExitCode.BUILD_FAILED,
        "This is a warning. Every range behind that input is measured at one value only: the "
        "state of a recurrent network that is always zero, a mask that never masks. Real use "
        "then leaves the measured ranges.",
    ),
    Code(
        "E409",
        "too few calibration samples",
        ExitCode.BUILD_FAILED,
        "This is a warning. If samples are drawn alike, the chance that one more exceeds the "
        "greatest of n, or falls below the least, is 2 / (n + 1) for every quantity that is "
        "measured, whatever its distribution. infc warns where that is a tenth or more; 100 to "
        "500 samples are usual.",
    ),
    Code(
        "E410",
        "calibrated on random samples",
        ExitCode.BUILD_FAILED,
        "This is a warning. Random samples exercise a model in ways that real ones do not, so "
        "that the ranges are wrong for real use, mostly far too wide. That serves to try things "
        "out, and is done only where `--calibration random` asks for it.",
    ),
    Code(
        "E411",
        "these ranges do not serve",
        ExitCode.BUILD_FAILED,
        "A ranges file holds what calibration measured: JSON with a version, and for each tensor "
        "its extremes and a histogram. This one cannot be read, is of another version, or is "
        "damaged at the place that is named; or it holds nothing about a tensor that is to be "
        "quantised, because it was made of another model. `infc inspect FILE` shows what one "
        "holds.",
    ),
    Code(
        "E412",
        "a tensor holds NaN or Inf on the calibration data",
        ExitCode.BUILD_FAILED,
        "The samples are finite, and the float model computes something from them that is not. "
        "NaN stops the calibration: whatever depends on it is unknown. Inf is a warning, and the "
        "range is that of the finite values; masks of attention hold it on purpose.",
    ),
    Code(
        "E413",
        "the model does not run on the calibration data",
        ExitCode.BUILD_FAILED,
        "ONNX Runtime runs the float model on every sample to measure its tensors, and refused "
        "one of them. The sample and the runtime's own message are given: an index out of range, "
        "or sizes of two inputs that do not go together, are the usual causes.",
    ),
    Code(
        "E414",
        "INT8 without calibration data",
        ExitCode.USAGE,
        "Integers need to know what the values of every tensor lie between, and only samples of "
        "real use tell: give them with `--calibration`. Random numbers are taken when the word "
        "`random` asks for them, and never silently. A model that is quantised already (Q/DQ) "
        "needs none.",
    ),
    Code(
        "E415",
        "a preprocessing that looks as if it were for other pixels",
        ExitCode.BUILD_FAILED,
        "This is a warning. A `mean` and a `std` below 1 are usually published for pixels from 0 "
        "to 1, and pixels count to 255 here: the model would get values in the thousands. "
        "`range=1` makes pixels count to 1; where 255 is meant, nothing needs to be done.",
    ),
    Code(
        "E420",
        "part of the graph stays in float32",
        ExitCode.BUILD_FAILED,
        "This is a warning. At fp16, a value that was measured to reach half of 65,504, the "
        "greatest float16, is computed in float32, and so is whatever reads it: it would become "
        "infinite on inputs a little larger. A weight that float16 cannot hold, because it is too "
        "large or so small that its digits are lost, stays in float32 too. The manifest lists "
        "all of them, and every node that stays in float32 for another reason.",
    ),
    Code(
        "E421",
        "the budget of accuracy is missed",
        ExitCode.VERIFICATION_FAILED,
        "`--min-sqnr` and `--max-drop` say what INT8 may cost. The layers to keep in float were "
        "searched for on the quantised graph, as ONNX defines it; then the artifact was run in its "
        "own runtime on the same data, and misses the budget, because that runtime rounds "
        "otherwise. No bundle was published: ask for a little more, so that the search leaves "
        "room. As a warning it says that no layer at all can be quantised within the budget.",
    ),
    Code(
        "E422",
        "an INT8 artifact that is slower than it may be",
        ExitCode.BUILD_FAILED,
        "`--max-latency` limits the time of a run, or its ratio to the float artifact's on the "
        "same target. Both artifacts were timed in turns, in their runtime, on one thread, and the "
        "median is above the limit by more than the measurements differ. No bundle was published: "
        "small layers, or many that stay in float, make INT8 the slower choice.",
    ),
    Code(
        "E423",
        "a metric that cannot be computed",
        ExitCode.BUILD_FAILED,
        "`--max-drop` takes a metric of labelled data: `top1`, or a function of the user's that "
        "takes the outputs by name and the labels, and returns a number, higher is better. The "
        "data has no labels, they do not go with the outputs, or the function raised an error or "
        "returned something else; the message names the place.",
    ),
    Code(
        "E424",
        "nothing can be pruned",
        ExitCode.BUILD_FAILED,
        "`--prune` removes channels that layers with constant weights compute and others read. "
        "There is none here that may go: the only layers compute the model's own outputs, a "
        "normalisation averages over their channels (`--prune-normalized` takes those too), they "
        "are quantised already, or what reads them cannot be followed; or the part is so small "
        "that no layer loses a channel.",
    ),
    Code(
        "E425",
        "nothing can be quantised dynamically",
        ExitCode.BUILD_FAILED,
        "`--precision int8-dynamic` keeps the weights of linear layers (Gemm, MatMul with constant "
        "weights) in int8 and rounds what they read at run time, so that no calibration is needed. "
        "The model has no such layer of any size, or all of them were asked to stay in float. "
        "Convolutions are for `--precision int8`, with calibration data.",
    ),
    Code(
        "E501",
        "a toolchain is missing",
        ExitCode.TOOLCHAIN_MISSING,
        "The back end, compiler or runtime that the target needs is not installed. infc never "
        "installs anything silently; the message gives the exact command, and `infc doctor` "
        "lists everything that is missing.",
    ),
    Code(
        "E502",
        "a worker crashed",
        ExitCode.BUILD_FAILED,
        "The back end runs in a process of its own, and that process died from a signal or left "
        "without an answer. The last lines of its log are given; the other targets of the same "
        "command are not affected.",
    ),
    Code(
        "E503",
        "a worker ran out of time",
        ExitCode.BUILD_FAILED,
        "The back end's process was stopped at the time limit (`--timeout`). The last lines of "
        "its log are given.",
    ),
    Code(
        "E504",
        "a worker's answer makes no sense",
        ExitCode.BUILD_FAILED,
        "The back end's process ended well but left no result file, or one that is not what the "
        "protocol asks for.",
    ),
    Code(
        "E505",
        "a worker ran out of memory",
        ExitCode.BUILD_FAILED,
        "The back end's process reached the memory limit (`--memory-limit`) or was killed by the "
        "system's out-of-memory killer.",
    ),
    Code(
        "E506",
        "a worker failed",
        ExitCode.BUILD_FAILED,
        "The back end's process raised an error outside the back end's own compiler. The error "
        "and the last lines of its log are given.",
    ),
    Code(
        "E507",
        "a toolchain is out of date or damaged",
        ExitCode.TOOLCHAIN_MISSING,
        "The environment that the back end runs in was installed from another lock than the one "
        "this infc has, or part of it is gone: its record, or the interpreter it was made with. "
        "`infc toolchain install NAME` makes it anew; `infc toolchain list` shows them all.",
    ),
    Code(
        "E508",
        "no interpreter for a toolchain",
        ExitCode.TOOLCHAIN_MISSING,
        "The toolchain needs another version of Python than any that was found: on the path, "
        "among pyenv's versions, through `uv python find`. infc installs no interpreter; the "
        "message gives the commands that do. `INFC_PYTHON_3_7=/path/to/python3.7` names one that "
        "lies elsewhere.",
    ),
    Code(
        "E509",
        "a toolchain cannot be made",
        ExitCode.TOOLCHAIN_MISSING,
        "pip could not resolve, download or install what the environment needs: the package index "
        "cannot be reached, a file does not have the SHA-256 that the lock gives, the disk is "
        "full, or what was installed cannot be imported. The last lines of its log are given. What "
        "was installed before is still there, and nothing half-made is left behind.",
    ),
    Code(
        "E510",
        "not a lock that can be installed",
        ExitCode.USAGE,
        "A lock lists packages as NAME==VERSION, each with `--hash=sha256:` and the digest of what "
        "may be installed for it, and begins with the header that `infc toolchain lock` writes. "
        "Anything else in it, such as a package without a hash, an index or an option of pip, is "
        "refused, and so is a lock for another platform or another toolchain.",
    ),
    Code(
        "E511",
        "the artifact can only be built on the device",
        ExitCode.TOOLCHAIN_MISSING,
        "TensorRT times its kernels on the GPU that the engine is for, so that an engine is built "
        "there and nowhere else. infc writes a deferred bundle then: the graph, the builder and a "
        "script `./finish` that builds the engine on the device, verifies it there and completes "
        "the bundle. `--no-deferred` refuses that; `--remote ssh://user@host` builds on the "
        "device while infc waits.",
    ),
    Code(
        "E512",
        "the other machine does not let infc in",
        ExitCode.TOOLCHAIN_MISSING,
        "`--remote` uses OpenSSH's `ssh` with the user's own configuration. It could not get "
        "in: the name is unknown, nothing answers there, the host's key is not the one in "
        "known_hosts or is not known at all, or no key of the user's is accepted. infc asks no "
        "questions and never turns the check of host keys off. Whatever `ssh HOST true` needs to "
        "succeed without a question, `--remote` needs too; for a password there is SSH_ASKPASS.",
    ),
    Code(
        "E513",
        "the connection to the other machine was lost",
        ExitCode.BUILD_FAILED,
        "The connection broke and could not be made again. What the other machine has received "
        "stays there, in its cache folder; the same command sends only the rest, and removes it "
        "at the end. The bundle that was to be finished is as it was.",
    ),
    Code(
        "E514",
        "the engine cannot be built on this machine",
        ExitCode.TOOLCHAIN_MISSING,
        "The machine that is to build the engine has no Python 3, no TensorRT, another release "
        "of it than the one that the bundle is for, no GPU, or one of another compute "
        "capability; or another infc is building the same there at this moment. Nothing was "
        "built; the bundle is as it was.",
    ),
    Code(
        "E515",
        "the other machine's disk is full",
        ExitCode.BUILD_FAILED,
        "What the build needs, or the engine itself, does not fit there. The message says where "
        "and how much. What was sent has been removed again, and the bundle is as it was.",
    ),
    Code(
        "E516",
        "no device can be had from the tracker",
        ExitCode.TOOLCHAIN_MISSING,
        "`--remote tracker://HOST:PORT/KEY` asks a tracker of TVM's (`infc device tracker`) for a "
        "device that was registered there under KEY by a device server (`infc device server`). "
        "Nothing answers at that address, or not with a tracker's protocol; no device has that "
        "key; all that have it stay busy; or the device's server is none of infc's, or was built "
        "with another TVM than this one.",
    ),
    Code(
        "E517",
        "the device was lost",
        ExitCode.BUILD_FAILED,
        "A device that was had from a tracker stopped answering, closed the connection or was "
        "stopped by its time limit in the middle of something. The bundle is as it was, and of a "
        "tuning all records are kept that there were until then.",
    ),
    Code(
        "E601",
        "the optimised graph does not answer as the source model does",
        ExitCode.VERIFICATION_FAILED,
        "infc ran the source model and the optimised graph on the same inputs and the outputs "
        "differ by more than float rounding explains. That is a bug in infc: find the pass with "
        "`--disable-pass` and report it. No bundle was published.",
    ),
    Code(
        "E602",
        "the artifact does not answer as the source model does",
        ExitCode.VERIFICATION_FAILED,
        "infc ran the source model and the built artifact on the same inputs and at least one "
        "output is outside the threshold of the chosen precision. No bundle was published. The "
        "report lists the error of every output.",
    ),
    Code(
        "E603",
        "the loader does not answer as the source model does",
        ExitCode.VERIFICATION_FAILED,
        "The generated C++ or Java loader was compiled and run on the reference inputs, and at "
        "least one output is outside the threshold.",
    ),
    Code(
        "E604",
        "the verification cannot prove anything",
        ExitCode.VERIFICATION_FAILED,
        "An output of the source model holds NaN or Inf only, so that comparing it says nothing. "
        "Give real inputs with `--verify-data`, or skip with `--no-verify`.",
    ),
    Code(
        "E605",
        "an output is too ill-conditioned to be compared closely",
        ExitCode.VERIFICATION_FAILED,
        "Rounding the sums inside the source model differently, by one part in a million, moves "
        "this output by more than the threshold of the chosen precision: a softmax over logits of "
        "1e9 does that. Smaller inputs did not help, so the output was held only to what such "
        "rounding does to it. Give real inputs with `--verify-data`.",
    ),
    Code(
        "E606",
        "the source model is not the one that the bundle was compiled from",
        ExitCode.VERIFICATION_FAILED,
        "The manifest of a bundle records the SHA-256 of its source model, with all of its "
        "external data, and the model that was named has another. `infc debug-accuracy` compares "
        "layer by layer, which says nothing about another model.",
    ),
    Code(
        "E607",
        "the artifact could not be built again as it was",
        ExitCode.VERIFICATION_FAILED,
        "`infc debug-accuracy` builds the artifact of a bundle again, and compares the files with "
        "the bundle's before it looks at any layer. They differ: infc or the SDK is of another "
        "version than when the bundle was compiled, the calibration samples that the SDK's own "
        "converter took are not kept, or the artifact is encrypted. What is said of the layers is "
        "true of the artifact that was built now.",
    ),
    Code(
        "E608",
        "the artifact was built, and not verified",
        ExitCode.VERIFICATION_FAILED,
        "The engine could be built and could not be run: there is no GPU driver, or another "
        "library stood in for the target's. The bundle is in the state `built`, not `ready`, and "
        "its verdict is `not verified`. `./finish` on the device settles it; an engine that the "
        "target's own library has built is not built again.",
    ),
    Code(
        "E701",
        "the bundle cannot be written",
        ExitCode.BUILD_FAILED,
        "The output directory may not be written, or the disk is full. What was there before is "
        "untouched, and nothing half-made is left behind.",
    ),
    Code(
        "E702",
        "not a bundle, or a damaged one",
        ExitCode.BUILD_FAILED,
        "The directory has no manifest that this version of infc reads, or a file does not have "
        "the SHA-256 that the manifest records.",
    ),
    Code(
        "E703",
        "the loader does not compile",
        ExitCode.BUILD_FAILED,
        "The C++ or Java compiler refused the generated loader, or the SDK's headers do not fit. "
        "The compiler's own message is given.",
    ),
    Code(
        "E704",
        "the model's signature has no loader",
        ExitCode.BUILD_FAILED,
        "An input or output holds elements that cannot cross the C interface (strings, complex "
        "numbers), or the rank of an input is unknown, so that no function with typed arguments "
        "can be generated.",
    ),
    Code(
        "E705",
        "the loader failed while running",
        ExitCode.BUILD_FAILED,
        "The C++ or Java loader was compiled, and its program ended with an error, crashed, or "
        "ran out of time. Its own message is given.",
    ),
    Code(
        "E706",
        "the key of an encrypted model is missing or wrong",
        ExitCode.BUILD_FAILED,
        "The model file of this bundle is, or is to be, encrypted (AES-GCM). The key is 32 "
        "hexadecimal digits. It comes from the file that `-X key-file=PATH` names, from the "
        "environment variable INFC_MODEL_KEY, or from the file that INFC_MODEL_KEY_FILE names; it "
        "is no argument of any command, and no file that infc writes holds it. GCM tells a wrong "
        "key, or a file that was changed, from the right ones before anything is loaded.",
    ),
    Code(
        "E707",
        "the bundle is not finished",
        ExitCode.BUILD_FAILED,
        "The bundle is deferred: it holds the graph and the builder, and its engine is still to "
        "be built on the device. Run `./finish` in it there, or `infc finish BUNDLE --remote "
        "ssh://user@host` here.",
    ),
    Code(
        "E708",
        "the bundle cannot be served by Triton",
        ExitCode.BUILD_FAILED,
        "Triton Inference Server has back ends for TensorRT, ONNX Runtime, OpenVINO and "
        "TorchScript, and none for the back end of this bundle; or that back end does not take "
        "tensors of such a type, scalars, or outputs whose rank only the run tells; or an option "
        "of the package does not fit the model. Nothing was written.",
    ),
    Code(
        "E709",
        "the model repository holds something else",
        ExitCode.BUILD_FAILED,
        "Versions of one Triton model share its configuration: back end, inputs and outputs, "
        "batching, parameters. The version to be added differs in one of them, has a number that "
        "is taken, or the model's folder was not made, or its configuration was changed, by "
        "somebody other than infc. Nothing was written: choose another name or number, or with "
        "`--keep-config` leave the configuration as it is.",
    ),
)

CODES: dict[str, Code] = {row.id: row for row in _TABLE}


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A question that names those of `known` that are nearest to `name`; "" where none is near.

    Ends with a blank, for the rest of a diagnostic's help to follow.
    """
    import difflib

    near = difflib.get_close_matches(name, list(known), n=3)
    return f"did you mean {' or '.join(f'`{n}`' for n in near)}? " if near else ""


def look_up(text: str) -> Code:
    """Return the row of the table for `text`: a code, in any case, with or without `error[...]`.

    Raises:
        InfcError: E110, with the nearest codes.
    """
    wanted = text.rpartition("[")[2].rstrip("]:").upper()
    if wanted in CODES:
        return CODES[wanted]
    hint = did_you_mean(wanted, CODES)
    raise fail("E110", f"there is no code `{text}`", help=f"{hint}`infc explain` lists them all")
