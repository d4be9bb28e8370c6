"""The options that several verbs share, and what becomes of their values.

A verb takes them all as `**rest`; `inputs_of`, `passes_of`, `verify_of`, `calibration_of`,
`budget_of`, `limits_of` and `progress_of` make of it what the driver takes.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from infc import completion
from infc.budget import TOP1, BudgetOptions, parse_drop, parse_latency
from infc.diagnostics import fail
from infc.import_options import ImportOptions
from infc.input_spec import InputSpec
from infc.preprocessing import EXAMPLE, Preprocess
from infc.prune_options import NORMS, SCOPES, PruneOptions, parse_part
from infc.request import (
    CALIBRATION_METHODS,
    FLOATS,
    IO,
    CalibrationOptions,
    PassOptions,
    VerifyOptions,
    WorkerLimits,
    parse_bytes,
    parse_toolchains,
)
from infc.tuning_options import TuningOptions, parse_tuning

if TYPE_CHECKING:
    from infc.progress import ProgressLine

_CALIBRATION = CalibrationOptions("data")
"""Its defaults are those of the command line."""


def _together(*decorators: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Several options as one decorator, shown by `--help` in this order."""

    def decorate(function: Any) -> Any:
        for decorator in reversed(decorators):
            function = decorator(function)
        return function

    return decorate


def common_options(command: click.Command) -> click.Command:
    """Give `command` the options that every verb has; `main` looks for them in the words."""
    as_json = "Print the result as one JSON document."
    where = "Show where an error arose."
    command.params += [
        click.Option(["--json"], is_flag=True, expose_value=False, help=as_json),
        click.Option(["--traceback"], is_flag=True, expose_value=False, help=where),
    ]
    return command


def verb_of(group: click.Group) -> Callable[[Callable[..., Any]], click.Command]:
    """Make a function a verb of `group`, with the options that every verb has."""

    def verb(function: Callable[..., Any]) -> click.Command:
        command = click.command(function.__name__.rstrip("_").replace("_", "-"))(function)
        group.add_command(common_options(command))
        return command

    return verb


def path_argument(name: str, completer: completion.Completer) -> Callable[[Any], Any]:
    """A model or a bundle; whether it exists is for the driver to say, with its own diagnostic."""
    return click.argument(name, type=click.Path(path_type=Path), shell_complete=completer)


pass_options = _together(
    click.option(
        "--input",
        "inputs",
        multiple=True,
        metavar="NAME=SHAPE",
        help="Fix, name or bound dimensions: x=1x3x224x224, x=1..8@4x3x224x224.",
    ),
    click.option(
        "--disable-pass",
        "disabled",
        multiple=True,
        metavar="PASS",
        shell_complete=completion.passes,
        help="Leave a pass out; repeat for several.",
    ),
    click.option(
        "--dump-after",
        multiple=True,
        metavar="PASS",
        shell_complete=completion.passes,
        help="Write the graph after each run of a pass that changed it.",
    ),
    click.option(
        "--dump-dir",
        type=click.Path(path_type=Path),
        help="Where `--dump-after` writes.  [default: .]",
    ),
    click.option("--check-passes", is_flag=True, help="Check the graph after every pass."),
)
reference_options = _together(
    click.option(
        "--verify-data",
        type=click.Path(path_type=Path),
        metavar="FILE.npz",
        help="Inputs to verify on, arrays named after the inputs; else they are random.",
    ),
    click.option(
        "--samples",
        type=click.IntRange(min=1),
        default=VerifyOptions().samples,
        show_default=True,
        help="Random input sets for each size of the dynamic dimensions.",
    ),
    click.option(
        "--seed",
        type=click.IntRange(min=0),
        default=VerifyOptions().seed,
        show_default=True,
        help="Of the random inputs.",
    ),
)
verify_options = _together(
    click.option("--no-verify", is_flag=True, help="Prove nothing; the bundle says so."),
    reference_options,
)
calibration_options = _together(
    click.option(
        "--calibration",
        metavar="DATA",
        help="Samples to measure activations on: .npz, .npy, .csv, a folder of .npy, .npz or "
        "photos, `module:function`, `file.py:function`, or the word `random`.",
    ),
    click.option(
        "--preprocess",
        metavar="KEY=VALUE,...",
        help=f"What makes the model's input of them: {EXAMPLE}.",
    ),
    click.option(
        "--calibration-samples",
        default=str(_CALIBRATION.samples),
        show_default=True,
        metavar="N|all",
        help="At most so many, spread evenly.",
    ),
    click.option(
        "--calibration-batch",
        type=click.IntRange(min=1),
        default=_CALIBRATION.batch,
        show_default=True,
        help="Samples in a run, where the model leaves that open.",
    ),
    click.option(
        "--method",
        type=click.Choice(CALIBRATION_METHODS),
        default=_CALIBRATION.method,
        show_default=True,
        help="How ranges are made of what was measured.",
    ),
    click.option(
        "--percentile",
        type=click.FloatRange(min=50, min_open=True, max=100),
        default=_CALIBRATION.percentile,
        show_default=True,
        help="Of `--method percentile`.",
    ),
)
budget_options = _together(
    click.option(
        "--min-sqnr",
        type=float,
        metavar="DB",
        help="Keep as few layers in float as this SQNR of the worst output takes.",
    ),
    click.option(
        "--max-drop",
        metavar="PERCENT",
        help="The same for a drop of the metric on `--labelled`: 0.5%, 0.005.",
    ),
    click.option(
        "--metric",
        default=TOP1,
        show_default=True,
        metavar="top1|MODULE:FUNCTION",
        help="Of `--max-drop`; also FILE.py:FUNCTION. It takes (outputs, labels).",
    ),
    click.option(
        "--labelled",
        metavar="DATA",
        help="A .npz with an array `labels`, a .csv with `--preprocess label=COLUMN`, or "
        "`module:function` that yields (inputs, label).",
    ),
)
keep_float_option = click.option(
    "--keep-float",
    multiple=True,
    metavar="NODE",
    help="Leave a node in float32, by its name or that of what it gives; repeat for several.",
)
fallback_option = click.option(
    "--fallback",
    type=click.Choice([p.value for p in FLOATS]),
    default=FLOATS[0].value,
    show_default=True,
    help="What computes at int8 that is not quantised.",
)
io_option = click.option(
    "--io",
    type=click.Choice(IO),
    default=IO[0],
    show_default=True,
    help="Type of inputs and outputs: the source model's, or the precision's (16 bits, integers).",
)
latency_option = click.option(
    "--max-latency",
    metavar="RATIOx|TIME",
    help="Refuse an int8 artifact that is slower: `1.0x` the float one's time, `5ms`.",
)
_LABELLED = click.option(
    "--labelled",
    metavar="DATA",
    help="A .npz with an array `labels`, a .csv with `--preprocess label=COLUMN`, or "
    "`module:function` that yields (inputs, label).",
)
_PREPROCESS = click.option(
    "--preprocess",
    metavar="KEY=VALUE,...",
    help=f"What makes the model's input of data: {EXAMPLE}.",
)
prune_options = _together(
    click.option(
        "--prune",
        metavar="PART",
        help="Remove so many channels of every layer, those of the least weight: 30%.",
    ),
    click.option(
        "--prune-scope",
        type=click.Choice(SCOPES),
        default="layer",
        show_default=True,
        help="Rank the channels of each layer, or of the whole model.",
    ),
    click.option(
        "--prune-norm",
        type=click.Choice(NORMS),
        default="l1",
        show_default=True,
        help="What a channel's weight is: the sum of absolute values, or of squares.",
    ),
    click.option(
        "--prune-multiple",
        type=click.IntRange(min=1),
        default=8,
        show_default=True,
        metavar="N",
        help="Keep a multiple of N channels, where that still removes any.",
    ),
    click.option(
        "--prune-normalized",
        is_flag=True,
        help="Also channels that a layer normalisation averages over.",
    ),
)
labelled_options = _together(
    _LABELLED,
    click.option(
        "--metric",
        default=TOP1,
        show_default=True,
        metavar="top1|MODULE:FUNCTION",
        help="Of `--labelled`, before and after pruning.",
    ),
    _PREPROCESS,
)
import_options = _together(
    click.option(
        "--model",
        "model_class",
        default="",
        metavar="PACKAGE.MODULE:CLASS",
        help="What a checkpoint's weights belong to; also FILE.py:CLASS.",
    ),
    click.option("--signature", default="", metavar="NAME", help="Which of a SavedModel's."),
    click.option(
        "--graph-output",
        "graph_outputs",
        multiple=True,
        metavar="NAME",
        help="Of a frozen TensorFlow graph; repeat for several.  [default: found]",
    ),
    click.option(
        "--layout",
        type=click.Choice(["nchw"]),
        help="Take images channels first.  [default: as the model does]",
    ),
)
pickle_option = click.option(
    "--allow-pickle",
    is_flag=True,
    help="Let the model file run code when it is loaded.",
)
limit_options = _together(
    click.option(
        "--timeout",
        type=click.FloatRange(min=0, min_open=True),
        default=WorkerLimits().timeout_s,
        show_default=True,
        metavar="SECONDS",
        help="For each worker process.",
    ),
    click.option(
        "--memory-limit", metavar="SIZE", help="Address space of each worker process: 8G, 500M."
    ),
)
toolchain_option = click.option(
    "--toolchain",
    "toolchains",
    multiple=True,
    metavar="BACKEND=NAME",
    help="Run the workers of this back end or framework in an environment of `infc toolchain`.",
)
remote_option = click.option(
    "--remote",
    metavar="ssh://[USER@]HOST[:PORT]",
    default="",
    help="Build and verify the engine on that machine; it needs Python 3 and TensorRT.",
)
device_option = click.option(
    "--remote",
    metavar="tracker://HOST[:PORT]/KEY",
    default="",
    help="Run or measure on the devices of that name that a tracker has (`infc device`).",
)
stand_in_option = click.option(
    "--stand-in",
    metavar="MODULE",
    default="",
    help="Build with this library instead, to try things out: `tensorrt_rtx` needs no GPU.",
)
deferred_option = click.option(
    "--deferred/--no-deferred",
    default=True,
    help="Leave an engine that cannot be built here to the device.  [default: deferred]",
)
tuning_options = _together(
    click.option(
        "--tune",
        metavar="trials=N|minutes=M|off",
        help="Measure kernels for so long first; `off` uses no record of earlier measurements.",
    ),
    click.option(
        "--tuning-database",
        "databases",
        multiple=True,
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Use these records too, before those of INFC_HOME; repeat for several.",
    ),
)
progress_options = _together(
    click.option("--quiet", "-q", is_flag=True, help="No progress, and only paths as the result."),
    click.option("--verbose", "-v", is_flag=True, help="A line for every step, with its time."),
)
through_option = click.option(
    "--through",
    type=click.Choice(["runtime", "cpp", "java"]),
    default="runtime",
    show_default=True,
    help="The artifact's runtime, or the generated loader, compiled first.",
)


def inputs_of(rest: Mapping[str, Any]) -> tuple[InputSpec, ...]:
    """The value of `--input`.

    Raises:
        InfcError: E110.
    """
    return tuple(InputSpec.parse(text) for text in rest["inputs"])


def reading_of(rest: Mapping[str, Any]) -> ImportOptions:
    """The values of `import_options` and `pickle_option`.

    Raises:
        InfcError: E110.
    """
    return ImportOptions(
        rest["model_class"],
        rest["allow_pickle"],
        rest["signature"],
        tuple(rest["graph_outputs"]),
        rest["layout"] or "",
    )


def passes_of(rest: Mapping[str, Any]) -> PassOptions:
    """The values of `pass_options`, but for the inputs."""
    return PassOptions(
        disabled=frozenset(rest["disabled"]),
        dump_after=frozenset(rest["dump_after"]),
        dump_dir=rest["dump_dir"],
        check_between=rest["check_passes"],
    )


def verify_of(rest: Mapping[str, Any]) -> VerifyOptions:
    """The values of `verify_options` or of `reference_options`."""
    return VerifyOptions(
        enabled=not rest.get("no_verify"),
        samples=rest["samples"],
        seed=rest["seed"],
        data=rest["verify_data"],
    )


def pruning_of(rest: Mapping[str, Any]) -> PruneOptions | None:
    """The values of `prune_options`, with the data that tells what they cost.

    Raises:
        InfcError: E110.
    """
    text, spec = rest["prune"], rest["preprocess"]
    context = click.get_current_context()
    if text is None:
        names = ("prune_scope", "prune_norm", "prune_multiple", "prune_normalized")
        for name in names if "max_drop" in rest else (*names, "labelled", "metric", "preprocess"):
            if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
                option = name.replace("_", "-")
                raise fail("E110", f"`--{option}` says nothing without `--prune`")
        return None
    return PruneOptions(
        part=parse_part(text),
        scope=rest["prune_scope"],
        norm=rest["prune_norm"],
        multiple=rest["prune_multiple"],
        normalized=rest["prune_normalized"],
        labelled=rest["labelled"],
        metric=rest["metric"],
        preprocess=None if spec is None else Preprocess.parse(spec),
        batch=rest.get("calibration_batch", 1),
    )


def calibration_of(rest: Mapping[str, Any]) -> CalibrationOptions | None:
    """The values of `calibration_options`; None where there is no data.

    Raises:
        InfcError: E110.
    """
    data, spec, samples = rest["calibration"], rest["preprocess"], rest["calibration_samples"]
    if data is None:
        source = click.get_current_context().get_parameter_source("preprocess")
        if source is ParameterSource.COMMANDLINE and not (rest["prune"] and rest["labelled"]):
            raise fail("E110", "`--preprocess` says nothing without `--calibration`")
        return None
    if samples != "all" and not re.fullmatch("[1-9][0-9]{0,8}", samples):
        raise fail("E110", f"`--calibration-samples {samples}` is neither a number nor `all`")
    return CalibrationOptions(
        data=data,
        samples=None if samples == "all" else int(samples),
        preprocess=None if spec is None else Preprocess.parse(spec),
        method=rest["method"],
        percentile=rest["percentile"],
        batch=rest["calibration_batch"],
    )


def budget_of(rest: Mapping[str, Any]) -> BudgetOptions | None:
    """The values of `budget_options` and `latency_option`; None where none is given.

    Raises:
        InfcError: E110.
    """
    drop, latency = rest["max_drop"], rest.get("max_latency")
    ratio, time_ms = (None, None) if latency is None else parse_latency(latency)
    # Without a limit, labelled data only tells what pruning costs.
    told = drop is None and rest["prune"] is not None
    budget = BudgetOptions(
        rest["min_sqnr"],
        None if drop is None else parse_drop(drop),
        TOP1 if told else rest["metric"],
        None if told else rest["labelled"],
        ratio,
        time_ms,
    )
    return None if budget == BudgetOptions() else budget


def tuning_of(rest: Mapping[str, Any]) -> TuningOptions:
    """The values of `tuning_options`.

    Raises:
        InfcError: E110.
    """
    return parse_tuning(rest["tune"], tuple(rest["databases"]))


def limits_of(rest: Mapping[str, Any]) -> WorkerLimits:
    """The values of `limit_options`.

    Raises:
        InfcError: E110.
    """
    memory = rest["memory_limit"]
    return WorkerLimits(rest["timeout"], None if memory is None else parse_bytes(memory))


def toolchains_of(rest: Mapping[str, Any]) -> dict[str, str]:
    """The value of `--toolchain`.

    Raises:
        InfcError: E110.
    """
    return parse_toolchains(rest["toolchains"])


def progress_of(rest: Mapping[str, Any]) -> ProgressLine:
    """What `progress_options` ask for."""
    from infc.progress import ProgressLine, Verbosity

    if rest["quiet"]:
        return ProgressLine(Verbosity.QUIET)
    return ProgressLine(Verbosity.VERBOSE if rest["verbose"] else Verbosity.NORMAL)
