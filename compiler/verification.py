"""Proof: the source model, the optimised graph and the artifact, run on the same inputs.

The reference is the source model, run by its own framework with nothing optimised; every run is
in a worker. The reference vectors go into the bundle (`reference/<i>/inputs` and `outputs`), so
that the artifact can be proved again where it is used, without the source model or its framework.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from infc import building, conditioning, workers
from infc.bundle import Bundle
from infc.comparison import THRESHOLDS, OutputError, Threshold, compare, require
from infc.diagnostics import Diagnostic, InfcError, Severity, fail
from infc.request import Precision, VerifyOptions, WorkerLimits
from infc.signature import TensorSpec, load_tensors, numpy_dtype, save_tensors
from infc.targets import Target, back_end, module_of

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

    from infc.frontends import Source

    Tensors = dict[str, np.ndarray[Any, Any]]

RECORDED_BYTES = 64 << 20
"""Reference vectors beyond this are not kept in the bundle."""

SCALES_LOG2 = (-10, -20, -30, -40)
"""What random inputs are scaled by, in turn, where the model is ill-conditioned on larger ones."""

NOISE_MARGIN = 10.0
"""Three samples say where the extreme of a distribution with a long tail lies to about a decade."""

UNOPTIMIZED = Target("unoptimized", "onnxruntime", "", options={"graph-optimization": "off"})
"""ONNX Runtime as the judge: nothing rewritten, nothing fused."""

UNBOUNDED_BATCH = (1, 2, 3)
UNBOUNDED_DIM = (16, 24, 32)
"""What a dynamic dimension without bounds is tried at: low, typical, high."""


@dataclass(frozen=True, slots=True)
class Sets:
    """Input sets and the reference's answers, in tensor folders, side by side.

    The random floats among the inputs were multiplied by 2 ** `scale_log2`. `noise` names the
    outputs that are ill-conditioned all the same, with the relative error that rounding causes.
    """

    feeds: tuple[Path, ...]
    reference: tuple[Path, ...]
    scale_log2: int = 0
    noise: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Timing:
    """How a latency is measured: `runs` counted after `warmup`, on `threads` threads."""

    runs: int
    warmup: int
    threads: int


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """A temporary folder for a command that publishes nothing."""
    with tempfile.TemporaryDirectory(prefix="infc-") as folder:
        yield Path(folder)


def make_feeds(
    inputs: Sequence[TensorSpec], options: VerifyOptions, scale_log2: int = 0
) -> list[Tensors]:
    """Return the input sets: the user's data, or seeded random ones at each size.

    A bounded dimension is tried at its least, typical and greatest value; one without bounds at
    three small sizes. Floats are normal with a deviation of 2 ** `scale_log2`, integers and
    booleans are 0 or 1, which are valid as indices, masks and token ids alike.

    Raises:
        InfcError: E110 where the user's data does not fit, E107 for an input of unknown rank.
    """
    if options.data is not None:
        return [_user_feeds(inputs, options.data)]
    import numpy as np

    rng = np.random.default_rng(options.seed)
    sizes = (0,) if all(spec.is_static for spec in inputs) else (0, 1, 2)
    return [
        {s.name: _random(rng, s, _shape(s, size, {}), scale_log2) for s in inputs}
        for size in sizes
        for _ in range(options.samples)
    ]


def typical_feeds(inputs: Sequence[TensorSpec], dims: Mapping[str, int]) -> Tensors:
    """One random input set, dynamic dimensions at `dims` or else their typical value.

    Raises:
        InfcError: E110 where `dims` names a dimension that no input has.
    """
    import numpy as np

    known = {d for spec in inputs for d in spec.shape or () if isinstance(d, str)}
    for name in dims:
        if name not in known:
            have = ", ".join(f"`{k}`" for k in sorted(known)) or "none"
            raise fail("E110", f"no input has a dimension `{name}`", help=f"there are: {have}")
    rng = np.random.default_rng(0)
    return {spec.name: _random(rng, spec, _shape(spec, 1, dims)) for spec in inputs}


def _shape(spec: TensorSpec, size: int, dims: Mapping[str, int]) -> list[int]:
    if spec.shape is None:
        raise fail(
            "E107",
            f"the rank of input `{spec.name}` is unknown",
            help=f"give its shape: `--input {spec.name}=...`",
        )
    shape = []
    for axis, dim in enumerate(spec.shape):
        if isinstance(dim, int):
            shape.append(dim)
            continue
        bounds = (spec.bounds or {}).get(str(dim))
        default = UNBOUNDED_DIM if axis else UNBOUNDED_BATCH
        shape.append(dims.get(str(dim), (bounds or default)[size]))
    return shape


def _random(
    rng: np.random.Generator, spec: TensorSpec, shape: Sequence[int], scale_log2: int = 0
) -> Any:
    import numpy as np

    dtype = numpy_dtype(spec.dtype)
    if np.issubdtype(dtype, np.integer) or dtype == np.bool_:
        return rng.integers(0, 2, shape).astype(dtype)
    normal = rng.standard_normal(shape).astype(np.float32) * np.float32(2.0**scale_log2)
    return normal.astype(dtype)


def _user_feeds(inputs: Sequence[TensorSpec], path: Path) -> Tensors:
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as data:
            missing = [s.name for s in inputs if s.name not in data]
            arrays = {s.name: data[s.name] for s in inputs if s.name in data}
    except (OSError, ValueError, EOFError) as error:
        raise fail("E110", f"`--verify-data {path}` cannot be read: {error}") from error
    if missing:
        raise fail(
            "E110",
            f"`--verify-data {path}` has no array " + ", ".join(f"`{m}`" for m in missing),
            help="name the arrays as the inputs: " + ", ".join(f"`{s.name}`" for s in inputs),
        )
    for spec in inputs:
        if arrays[spec.name].dtype != numpy_dtype(spec.dtype):
            raise fail(
                "E110",
                f"`--verify-data {path}`: `{spec.name}` is {arrays[spec.name].dtype}, "
                f"the model takes {spec.dtype}",
            )
    return arrays


def write_feeds(feeds: Sequence[Tensors], folder: Path) -> tuple[Path, ...]:
    """Write each input set to a tensor folder of its own."""
    paths = tuple(folder / f"feeds-{i}" for i in range(len(feeds)))
    for path, tensors in zip(paths, feeds, strict=True):
        save_tensors(path, tensors)
    return paths


def reference_sets(
    source: Source,
    options: VerifyOptions,
    scratch: Path,
    limits: WorkerLimits,
    scale_log2: int = 0,
) -> Sets:
    """Run the source model by its own framework's semantics, in the new folder `scratch`.

    Raises:
        InfcError: E107 where it does not run, E604 where its answer proves nothing.
    """
    scratch.mkdir(parents=True)
    feeds = write_feeds(make_feeds(source.inputs, options, scale_log2), scratch)
    reference = source.reference
    target = Target("reference", "onnxruntime", "", options=reference.options)
    names = [s.name for s in source.inputs], [s.name for s in source.outputs]
    try:
        answers = _run(reference.module, reference.entry, target, feeds, names, scratch,
                       limits, "the source model")  # fmt: skip
    except InfcError as error:
        first = error.diagnostics[0]
        if first.code not in ("E204", "E506"):
            raise
        _blame_operators(source, target, scratch, limits)
        raise fail(
            "E107",
            first.message,
            notes=first.notes,
            help="give the shapes it needs with `--input`, or skip with `--no-verify`",
        ) from error
    sets = Sets(feeds, answers, scale_log2)
    _require_finite(sets)
    return sets


def _blame_operators(source: Source, target: Target, scratch: Path, limits: WorkerLimits) -> None:
    """Say which operators the source model's own runtime lacks, where that is why it does not run.

    Raises:
        InfcError: E203 for each of them.
    """
    payload = {"model": str(source.reference.entry.resolve()), "target": target.to_json()}
    job = workers.Call(source.reference.module, "check", payload, scratch / "check",
                       scratch / "log", "the source model")  # fmt: skip
    try:
        rows = workers.call(job, limits)["unsupported"]
    except InfcError:  # no single operator is to blame
        return
    if rows:
        end = back_end(target.back_end)
        raise building.unsupported(source.model, source.path.name, end, rows)


Check = Callable[[Sets], tuple[OutputError, ...]]


@dataclass(slots=True)
class Reference:
    """The reference of a compilation, which finds other inputs where the first prove nothing."""

    source: Source
    options: VerifyOptions
    scratch: Path
    limits: WorkerLimits
    sets: Sets = field(init=False)
    _settled: bool = field(init=False, default=False)

    def __post_init__(self) -> None:
        self.sets = reference_sets(
            self.source, self.options, self.scratch / "reference", self.limits
        )

    def require(self, check: Check, model: ir.Model) -> tuple[OutputError, ...]:
        """Return what `check` finds; `model` is the optimised graph.

        Where the check fails, and the model is so ill-conditioned on these inputs that rounding
        alone explains it, it is made again on smaller inputs, and, where there are none on which
        the model is well-conditioned, with the unstable outputs held to their own noise.

        Raises:
            InfcError: the check's own.
        """
        try:
            return check(self.sets)
        except InfcError as error:
            if error.diagnostics[0].code not in ("E601", "E602") or self._settled:
                raise
            self._settled = True
            if not self._noise(model, self.sets, seeds=1):
                raise
        self.sets = self._better_sets(model)
        return check(self.sets)

    def warnings(self) -> tuple[Diagnostic, ...]:
        """One for each output that could only be held to its own noise."""
        return tuple(
            Diagnostic(
                "E605",
                f"output `{name}` is ill-conditioned: rounding the model's sums differently by "
                f"{conditioning.JITTER:g} moves it by about "
                f"{noise / NOISE_MARGIN:.2g} of its peak; it was held to {noise:.2g} of it only",
                help="give real inputs with `--verify-data FILE.npz`",
                severity=Severity.WARNING,
            )
            for name, noise in self.sets.noise.items()
        )

    def _better_sets(self, model: ir.Model) -> Sets:
        """The largest of a few smaller scales at which the model is stable, or else the noise."""
        for scale_log2 in () if self.options.data else SCALES_LOG2:
            scratch = self.scratch / f"reference{scale_log2}"
            sets = reference_sets(self.source, self.options, scratch, self.limits, scale_log2)
            if not self._noise(model, sets, seeds=1):
                return sets
        noise = self._noise(model, self.sets, seeds=3)
        return replace(self.sets, noise={k: NOISE_MARGIN * v for k, v in noise.items()})

    def _noise(self, model: ir.Model, sets: Sets, seeds: int) -> dict[str, float]:
        """The outputs that rounding the sums of `model` otherwise moves beyond their threshold."""
        plain = replace(sets, reference=self._answers(model, sets, "plain"))
        noise: dict[str, float] = {}
        for seed in range(seeds):
            answers = self._answers(conditioning.jitter(model, seed), sets, "jittered")
            for error in compare_sets(plain, answers, THRESHOLDS[Precision.FP32]):
                if not error.ok:
                    noise[error.name] = max(noise.get(error.name, 0.0), error.relative_error)
        return noise

    def _answers(self, model: ir.Model, sets: Sets, which: str) -> tuple[Path, ...]:
        folder = self.scratch / "conditioning" / which
        folder.mkdir(parents=True, exist_ok=True)
        building.save_model(model, folder / "model.onnx")
        names = list(load_tensors(sets.feeds[0])), list(load_tensors(sets.reference[0]))
        return _run("infc.targets.onnxruntime", folder / "model.onnx", UNOPTIMIZED, sets.feeds,
                    names, folder, self.limits, "the optimised graph")  # fmt: skip


def check_optimized(
    sets: Sets, outputs: Sequence[TensorSpec], scratch: Path, limits: WorkerLimits
) -> tuple[OutputError, ...]:
    """Run the optimised graph in `scratch/model.onnx` with nothing further optimised.

    Raises:
        InfcError: E601 where it does not answer as the source model does, or does not run.
    """
    names = list(load_tensors(sets.feeds[0])), [s.name for s in outputs]
    remedy = "find the pass with `--disable-pass` and report it"
    try:
        answers = _run("infc.targets.onnxruntime", scratch / "model.onnx", UNOPTIMIZED, sets.feeds,
                       names, scratch, limits, "the optimised graph")  # fmt: skip
    except InfcError as error:
        first = error.diagnostics[0]
        if first.code != "E204":
            raise
        raise fail("E601", first.message, notes=first.notes, help=remedy) from error
    errors = compare_sets(sets, answers, THRESHOLDS[Precision.FP32])
    require(errors, "E601", "the optimised graph", remedy)
    return errors


def check_artifact(
    sets: Sets, target: Target, entry: Path, scratch: Path, limits: WorkerLimits
) -> tuple[OutputError, ...]:
    """Run the artifact `entry` in its runtime.

    Raises:
        InfcError: E602 where it does not answer as the source model does, E204, E5xx.
    """
    answers = run_artifact(sets, target, entry, scratch, limits)
    errors = compare_sets(sets, answers, THRESHOLDS[target.precision])
    remedy = "nothing was published; another back end may do better (`infc targets`)"
    require(errors, "E602", f"the `{target.name}` artifact", remedy)
    return errors


def run_artifact(
    sets: Sets, target: Target, entry: Path, scratch: Path, limits: WorkerLimits
) -> tuple[Path, ...]:
    """Run an artifact on every input set; return the folders of its answers."""
    names = list(load_tensors(sets.feeds[0])), list(load_tensors(sets.reference[0]))
    what = f"`{target.back_end}` while running the artifact"
    return _run(module_of(target.back_end), entry, target, sets.feeds, names, scratch, limits, what)


def _run(
    module: str,
    entry: Path,
    target: Target,
    feeds: Sequence[Path],
    names: tuple[Sequence[str], Sequence[str]],
    scratch: Path,
    limits: WorkerLimits,
    what: str,
) -> tuple[Path, ...]:
    """Run `entry` in a worker; `names` are those of its inputs and outputs, in order."""
    folders = tuple((scratch / f"answers-{i}").resolve() for i in range(len(feeds)))
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
    payload = {
        **_run_payload(entry, target, names, threads=1),
        "sets": [[str(f.resolve()), str(o)] for f, o in zip(feeds, folders, strict=True)],
    }
    log = scratch / "log"
    workers.call(workers.Call(module, "run", payload, scratch / "run", log, what), limits)
    return folders


def _run_payload(
    entry: Path, target: Target, names: tuple[Sequence[str], Sequence[str]], *, threads: int
) -> dict[str, Any]:
    inputs, outputs = names
    return {
        "entry": str(entry.resolve()),
        "target": target.to_json(),
        "inputs": list(inputs),
        "outputs": list(outputs),
        "threads": threads,
    }


def bench_in_worker(
    bundle: Bundle, feeds: Path, timing: Timing, scratch: Path, limits: WorkerLimits
) -> dict[str, Any]:
    """Time the artifact in its runtime, from Python: `min_ms`, `median_ms`, `max_ms`, `runs`."""
    target = Target.from_json(bundle.manifest["target"])
    names = [s.name for s in bundle.inputs], [s.name for s in bundle.outputs]
    payload = {
        **_run_payload(bundle.entry, target, names, threads=timing.threads),
        "feeds": str(feeds.resolve()),
        "runs": timing.runs,
        "warmup": timing.warmup,
    }
    what = f"`{target.back_end}` while timing the artifact"
    module, log = module_of(target.back_end), scratch / "log"
    return workers.call(workers.Call(module, "bench", payload, scratch, log, what), limits)


def compare_sets(
    sets: Sets, answers: Sequence[Path], threshold: Threshold
) -> tuple[OutputError, ...]:
    """Compare the answers in the folders `answers` with the reference."""
    pairs = zip(sets.reference, answers, strict=True)
    loaded = ((load_tensors(r), load_tensors(a)) for r, a in pairs)
    return compare(loaded, threshold, sets.noise)


def record_sets(sets: Sets, finished: Path) -> None:
    """Copy the reference vectors into the bundle, as many as `RECORDED_BYTES` allows."""
    left = RECORDED_BYTES
    for i, (feeds, reference) in enumerate(zip(sets.feeds, sets.reference, strict=True)):
        left -= sum(p.stat().st_size for f in (feeds, reference) for p in f.iterdir())
        if left < 0:
            return
        shutil.copytree(feeds, finished / "reference" / str(i) / "inputs")
        shutil.copytree(reference, finished / "reference" / str(i) / "outputs")


def recorded_sets(bundle: Bundle) -> Sets:
    """The reference vectors that the bundle holds.

    Raises:
        InfcError: E604 where it holds none.
    """
    folders = sorted((bundle.path / "reference").glob("[0-9]*"), key=lambda p: int(p.name))
    if not folders:
        raise fail(
            "E604",
            f"`{bundle.path}` holds no reference vectors",
            help="name the source model: `--source MODEL`",
        )
    return Sets(
        tuple(f / "inputs" for f in folders),
        tuple(f / "outputs" for f in folders),
        noise=bundle.manifest["verification"].get("noise", {}),
    )


def describe(options: VerifyOptions, sets: Sets) -> dict[str, Any]:
    """What was run, for the manifest."""
    scaled = (
        f", scaled by 2^{sets.scale_log2}: ill-conditioned otherwise" if sets.scale_log2 else ""
    )
    return {
        "reference": "the source model in its own framework, nothing optimised",
        "inputs": "the user's data" if options.data else f"random, seed {options.seed}{scaled}",
        "sets": len(sets.feeds),
        **({"noise": dict(sets.noise)} if sets.noise else {}),
    }


def _require_finite(sets: Sets) -> None:
    """Refuse a reference that proves nothing.

    Raises:
        InfcError: E604 where an output holds no finite value at all in any input set.
    """
    import numpy as np

    finite: dict[str, bool] = {}
    for folder in sets.reference:
        for name, value in load_tensors(folder).items():
            some = value.size == 0 or bool(np.isfinite(value.astype(np.float64)).any())
            finite[name] = finite.get(name, False) or some
    for name, some in finite.items():
        if not some:
            raise fail(
                "E604",
                f"output `{name}` of the source model is NaN or Inf throughout",
                help="give real inputs with `--verify-data FILE.npz`",
            )
