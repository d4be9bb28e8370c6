"""The graph to an artifact and its loaders: tuned, built here or left to the device, rendered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from infc import building, deferral, direct_path, kernel_tuning, loaders, own_calibration
from infc.assembly.job import Job
from infc.assembly.lowering import Legal
from infc.diagnostics import Diagnostic
from infc.targets import Artifact
from infc.targets.abilities import is_tunable


@dataclass(frozen=True, slots=True)
class Product:
    """What was made: the artifact, the languages of its loaders.

    `entry` is the file that the artifact's runtime opens, `graph` that of ONNX Runtime, where the
    artifact cannot be run.
    """

    artifact: Artifact
    entry: Path
    graph: Path
    languages: tuple[str, ...]
    warnings: tuple[Diagnostic, ...]


def produce(job: Job, legal: Legal) -> Product:
    """Build the artifact of the legalised graph, and render its loaders.

    Raises:
        InfcError: E203 for every node that the back end cannot take, E204, E4xx for the samples
            that its converter wants, E5xx.
    """
    if job.request.tuning.measures and is_tunable(job.end):
        _tune(job, legal)
    job.watch.start("building")
    samples, remarks = own_calibration.samples_for(
        job.target,
        job.shared.optimized.samples,
        job.shared.optimized.inputs,
        job.scratch / "own",
        job.request.limits,
    )
    artifact = _artifact(job, legal, samples)
    warnings = (*remarks, *kernel_tuning.warnings(job.request.tuning, artifact))
    job.watch.start("rendering loaders")
    languages = _rendered(job, legal, artifact)
    entry, graph = job.artifact_folder / artifact.entry, job.scratch / "model.onnx"
    if legal.provable is not None:
        graph = job.scratch / "provable.onnx"
        building.save_model(legal.provable, graph)
    return Product(artifact, entry, graph, languages, warnings)


def _tune(job: Job, legal: Legal) -> None:
    job.watch.start("tuning")
    job.watch.measured["tuning"] = kernel_tuning.tune(
        legal.model,
        job.request.model.name,
        job.end,
        job.target,
        job.request.tuning,
        legal.native.signature,
        job.scratch / "tuning",
        job.request.limits,
        job.watch.announce,
    )


def _artifact(job: Job, legal: Legal, samples: Sequence[Path]) -> Artifact:
    """The artifact in its folder, or what the device builds it of."""
    request, model, source_name = job.request, legal.model, job.request.model.name
    folder, scratch = job.artifact_folder, job.scratch
    if job.deferred is not None:
        return deferral.write_graph(
            model, source_name, job.end, job.target, folder, scratch, request.limits
        )

    def through_graph(place: Path) -> Artifact:
        return building.build(
            model,
            source_name,
            job.end,
            job.target,
            legal.native.signature,
            place,
            scratch,
            request.limits,
            samples,
            job.watch.announce,
            job.name,
            request.tuning,
        )

    optimized = job.shared.optimized
    return direct_path.build(
        request, optimized, job.target, through_graph, folder, scratch, job.watch
    )


def _rendered(job: Job, legal: Legal, artifact: Artifact) -> tuple[str, ...]:
    """Render the loaders; their languages."""
    opened, recipe, signature = artifact, None, legal.native.signature
    if job.deferred is not None:
        opened, recipe = deferral.for_loader(job.target, signature, job.artifact_folder)
    languages = loaders.possible(job.target, job.request.loaders)
    loaders.render(job.finished, job.name, job.target, opened, *signature, languages, recipe)
    return languages
