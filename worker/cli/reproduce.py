"""Command `secateur reproduce`: an artifact is pruned again on this machine, and compared with what one has."""

import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory, mkdtemp
from typing import Final

from pydantic import JsonValue, ValidationError

from core.engine.checkpoints.weight_comparison import WeightComparison, compare_weights
from core.engine.resume.kinds import BLOCK, FOLDER, STATE
from core.pipeline.recipes.recipe import Recipe
from core.pipeline.reports.manifest import Manifest, data_of
from core.pipeline.reports.report import Report
from core.service.sources.folders import dataset_hash
from core.settings import Settings
from core.storage import MANIFEST
from secateur import Client
from secateur.cli.output import RETRIES, explain, print_json, say
from secateur.cli.watch import follow
from secateur.errors import Conflict
from secateur.jobs import Job
from secateur_wire.base import JsonObject
from secateur_wire.metrics import Metrics
from secateur_wire.weights.packed import CorruptPackedFile, unpack_folder
from worker.embedded.instance import EmbeddedInstance, open_instance
from worker.embedded.register import add_dataset, add_model
from worker.embedded.serving import serving
from worker.failures import CommandFailed

_DROPPED: Final = ("gates", "queue", "metadata", "priority", "time_limit_seconds")
"""Fields of a body that change neither weights nor figures."""
_UNMEASURED: Final[Mapping[str, object]] = {"tasks": [], "prompts": [], "answers": None}
"""Measurements of an evaluation that are not repeated: all but perplexity."""
_OWN_TEXT: Final = "self"
"""Name of the text that the model writes itself."""
_LOOK_SECONDS: Final = 0.05
_STDERRS: Final = 2.0
_LEAST_ERROR: Final = 1e-6


@dataclass(frozen=True)
class RepeatedFigure:
    """Figure on a text, as the artifact states it and as it came out here: a perplexity or its ratio to the dense one.

    `error` is the standard error of the text's sample.
    """

    name: str
    text: str
    stated: float
    repeated: float
    error: float

    @property
    def is_within(self) -> bool:
        """Return whether both are within two standard errors of each other."""
        return abs(self.repeated - self.stated) <= _STDERRS * self.error + _LEAST_ERROR * self.stated


@dataclass(frozen=True)
class Reproduction:
    """An artifact pruned or measured again: repeated figures, and versions that differ (then, now).

    `weights` says how the weights compare, of the whole model or of one block; None where nothing was pruned.
    """

    job: str
    weights: WeightComparison | None
    figures: list[RepeatedFigure]
    versions: dict[str, tuple[str, str]]


def reproduce(settings: Settings, artifact: Path, source: Path, texts: Sequence[Path]) -> Reproduction:
    """Prune a model again by the recipe of an artifact, on this machine, and compare the weights.

    `source` is the dense model, and `texts` are the data sets that the recipe names, in any order: each is known by its
    SHA-256. A set that only evaluation names may be missing; its figures are then not repeated. Raises CommandFailed
    where the artifact, the model or a text is not what the recipe names, or where the job does not succeed.
    """
    manifest = _manifest_of(artifact)
    with _working(settings) as (client, temporary):
        with open_instance(settings) as instance:
            body = recipe_with(manifest, instance, source, texts)
        job, repeated = _run(client, body, temporary / "again")
        weights = _compare(artifact, temporary / "again", temporary)
    return Reproduction(
        job.id, weights, _figures(manifest.report, repeated), _versions_that_differ(manifest.report, repeated)
    )


def reproduce_block(
    settings: Settings, artifact: Path, source: Path, texts: Sequence[Path], block: int
) -> Reproduction:
    """Prune a model again up to a block, counted from 0, and compare that block's weights; the job is then cancelled.

    Nothing is measured, and nothing is trained after pruning: where the recipe does, only masks can be equal. Raises
    CommandFailed as `reproduce` does, and for a block in which the recipe prunes nothing.
    """
    manifest = _manifest_of(artifact)
    pruned = sorted({number for row in manifest.report.layers if isinstance(number := row.get("layer"), int)})
    if block not in pruned:
        others = f"; its blocks are {pruned[0]} to {pruned[-1]}" if pruned else ""
        raise CommandFailed(f"--block {block}: the recipe prunes nothing there{others}")
    with _working(settings) as (client, temporary):
        with open_instance(settings) as instance:
            body = recipe_with(manifest, instance, source, texts, is_measured=False)
        job = client.submit(**body)  # type: ignore[arg-type]
        explain(f"{job.id} prunes up to block {block}, then it is cancelled")
        try:
            (again := temporary / "again").mkdir()
            copy_block(settings.work_root / job.id, block, again, lambda: client.job(job.id).finished)
        finally:
            ended = _cancel(client, job.id)
        if not any(again.iterdir()):
            reason = ended.error.message if ended.error else "no reason is known"
            raise CommandFailed(f"{job.id} {ended.status} before block {block} could be compared: {reason}")
        weights = _compare(artifact, again, temporary, is_part=True)
    return Reproduction(job.id, weights, [], {})


def measure_again(settings: Settings, artifact: Path, texts: Sequence[Path]) -> Reproduction:
    """Measure the perplexity of an artifact on texts of its recipe, without the dense model and without pruning.

    Raises CommandFailed for a text that the recipe did not evaluate, and for an artifact with fewer tokens than its
    dense model: its perplexities are per token of that.
    """
    manifest = _manifest_of(artifact)
    report, stated = manifest.report, (manifest.report.metrics or Metrics()).perplexity
    if report.vocabulary is not None:
        raise CommandFailed(
            "--measure: the artifact has other tokens than its dense model, and its perplexities are per token of that "
            "one: give the dense model as --source, and the text as --text"
        )
    with _working(settings) as (client, temporary):
        with open_instance(settings) as instance:
            names = _take_in(instance, data_of(report), texts)
            if unknown := sorted(names.keys() - stated.keys()):
                raise CommandFailed(f"the artifact states no perplexity on {', '.join(unknown)}")
            model = add_model(
                instance, f"artifact-{dataset_hash(artifact)[-12:]}", _plain(artifact, temporary), say=explain
            )
        evaluation = Recipe.load(manifest.recipe).evaluation
        measured = {
            **evaluation.model_dump(mode="json", exclude_none=True),
            **_UNMEASURED,
            "datasets": list(names.values()),
        }
        # Any job measures its model before it prunes it; what this one prunes is of no use.
        body: JsonObject = {"model": model.name, "method": "magnitude", "sparsity": 0.5, "evaluation": measured}
        job, repeated = _run(client, body, temporary / "again")
    here = (repeated.metrics or Metrics()).perplexity
    figures = [
        RepeatedFigure(
            "Perplexity", name, then.pruned, now.dense, then.pruned * (then.ratio_stderr or 0.0) / then.ratio
        )
        for name, then in stated.items()
        if name in names and then.pruned and then.ratio and (now := here[names[name]]).dense
    ]
    return Reproduction(job.id, None, figures, _versions_that_differ(report, repeated))


@contextmanager
def _working(settings: Settings) -> Iterator[tuple[Client, Path]]:
    """Serve the home for the time of a command; yield a client, and a folder for the command's files."""
    with serving(settings, explain) as url:
        key = (settings.home.resolve() / "api-key").read_text().strip()
        with Client(url, key, retries=RETRIES) as client, TemporaryDirectory(dir=settings.home) as temporary:
            yield client, Path(temporary)


def _run(client: Client, body: JsonObject, target: Path) -> tuple[Job, Report]:
    """Run a job to its end and download its artifact; return its report. Raises CommandFailed."""
    job = follow(client, client.submit(**body).id)  # type: ignore[arg-type]
    if job.status != "succeeded":
        raise CommandFailed(f"{job.id} {job.status}: {job.error.message if job.error else 'no reason is known'}")
    client.download(job.id, target)
    return job, _manifest_of(target).report


def copy_block(work: Path, block: int, target: Path, has_ended: Callable[[], bool]) -> None:
    """Copy the file of a pruned block out of a job's work folder, as soon as the block is finished.

    Copies nothing if the job ends before.
    """
    while True:
        is_last_look = has_ended()
        for state in work.glob(f"attempt-*/{FOLDER}/{BLOCK.name}/[0-9]*/{STATE}"):
            file = state.parents[1] / "lasting" / f"{block:05d}.safetensors"
            if int(state.parent.name) > block and file.exists():
                shutil.copy(file, target)
                return
        if is_last_look:
            return
        time.sleep(_LOOK_SECONDS)


def _cancel(client: Client, job_id: str) -> Job:
    """Cancel a job, and return it once its worker has released it."""
    with suppress(Conflict):  # it has ended
        client.cancel(job_id)
    return client.wait(job_id)


def _versions_that_differ(then: Report, now: Report) -> dict[str, tuple[str, str]]:
    names = sorted({*then.versions, *now.versions})
    versions = {name: (then.versions.get(name, "none"), now.versions.get(name, "none")) for name in names}
    return {name: pair for name, pair in versions.items() if pair[0] != pair[1]}


def show_reproduction(done: Reproduction, least_masks: float, as_json: bool) -> bool:
    """Print how an artifact compares with what came out here; return whether it counts as reproduced."""
    weights = done.weights
    is_alike = weights is None or weights.is_equal or weights.mask_share >= least_masks
    reproduced = is_alike and all(each.is_within for each in done.figures)
    if as_json:
        print_json(
            {
                "job": done.job,
                "reproduced": reproduced,
                "tensors": None if weights is None else weights.tensors,
                "equal_tensors": None if weights is None else weights.equal_tensors,
                "mask_share": None if weights is None else weights.mask_share,
                "figures": [{**vars(each), "is_within": each.is_within} for each in done.figures],
                "versions": {name: {"then": then, "now": now} for name, (then, now) in done.versions.items()},
            }
        )
        return reproduced
    if weights is not None and weights.is_equal:
        say(f"All {weights.tensors} tensors are equal to the last bit.")
    elif weights is not None:
        say(f"{weights.equal_tensors} of {weights.tensors} tensors are equal to the last bit.")
        say(f"{weights.mask_share:.4%} of the weights are zero in both or in neither.")
    for each in done.figures:
        within = "within" if each.is_within else "NOT within"
        say(
            f"{each.name} on {each.text}: {each.stated:.5g} stated, {each.repeated:.5g} here; {within} two standard "
            "errors."
        )
    for name, (then, now) in done.versions.items():
        say(f"{name} was {then}, and is {now} here")
    return reproduced


def _manifest_of(artifact: Path) -> Manifest:
    try:
        manifest = Manifest.model_validate_json((artifact / MANIFEST).read_bytes())
    except (OSError, ValidationError) as error:
        raise CommandFailed(f"{artifact} is no artifact of a job: {MANIFEST} is missing or cannot be read") from error
    if manifest.report.model is None:
        raise CommandFailed(f"{artifact} does not say which model it was made from")
    return manifest


def recipe_with(
    manifest: Manifest, instance: EmbeddedInstance, source: Path, texts: Sequence[Path], *, is_measured: bool = True
) -> JsonObject:
    """Register the model and the texts, and return the recipe with their names here; raises CommandFailed.

    If not `is_measured`, the recipe ends with pruning.
    """
    stated = manifest.report.model
    assert stated is not None
    model = add_model(instance, f"source-{dataset_hash(source)[-12:]}", source, say=explain)
    if (stated.revision or "").startswith("sha256:") and model.revision != stated.revision:
        raise CommandFailed(f"{source} is another model than was pruned: {model.revision}, not {stated.revision}")
    data = data_of(manifest.report)
    names = _take_in(instance, data, texts)
    recipe = Recipe.load(manifest.recipe)
    datasets = [each for each in recipe.evaluation.datasets if each in names and is_measured]
    measured = {"datasets": datasets, **_UNMEASURED}
    changes: dict[str, object] = {
        "model": model.name,
        "evaluation": recipe.evaluation.model_copy(update=measured),
        "output": recipe.output.model_copy(update={"exports": []}),
    }
    if not is_measured:
        changes["recovery"] = None
    if recipe.is_chosen_by_cost:  # bytes are counted as before
        if recipe.target is not None and recipe.target.is_time:
            raise CommandFailed(
                f"target.{recipe.target.kind}: the shapes of its layers follow from times that were measured on a "
                "worker, so that no other machine makes the same weights"
            )
    elif manifest.report.target is not None:  # what it came to: a latency would be searched for anew
        changes |= {"target": None, "sparsity": manifest.report.target.sparsity}
    body = recipe.model_copy(update=changes).body()
    wanted: JsonObject = {name: value for name, value in body.items() if name not in _DROPPED}
    renamed = _renamed(wanted, names)
    assert isinstance(renamed, dict)
    if missing := sorted(set(_datasets(wanted)) - {*names, _OWN_TEXT}):
        needed = {digest: name for digest, name in data.items() if name in missing}
        raise CommandFailed(f"the recipe needs data that --text does not give: {_named(needed) or ', '.join(missing)}")
    return renamed


def _take_in(instance: EmbeddedInstance, data: Mapping[str, str], texts: Sequence[Path]) -> dict[str, str]:
    """Register texts that `data` has by their SHA-256; return their names here by those in the recipe."""
    names: dict[str, str] = {}
    for text in texts:
        digest = dataset_hash(text)
        if digest not in data:
            raise CommandFailed(f"{text} is none of the data sets of the recipe: {_named(data)}")
        names[data[digest]] = add_dataset(instance, f"text-{digest[:12]}", text).name
    return names


def _named(data: Mapping[str, str]) -> str:
    return ", ".join(f"{name} (SHA-256 {digest})" for digest, name in data.items())


def _datasets(value: JsonValue) -> Iterator[str]:
    """Yield the data sets that a body names, at any depth."""
    if isinstance(value, dict):
        for field, each in value.items():
            if field == "dataset" and isinstance(each, str):
                yield each
            elif field == "datasets" and isinstance(each, list):
                yield from (name for name in each if isinstance(name, str))
            else:
                yield from _datasets(each)
    elif isinstance(value, list):
        for each in value:
            yield from _datasets(each)


def _renamed(value: JsonValue, names: Mapping[str, str]) -> JsonValue:
    """Return a body with other names of its data sets."""
    if isinstance(value, dict):
        return {
            field: names.get(each, each)
            if field == "dataset" and isinstance(each, str)
            else [names.get(name, name) if isinstance(name, str) else name for name in each]
            if field == "datasets" and isinstance(each, list)
            else _renamed(each, names)
            for field, each in value.items()
        }
    return [_renamed(each, names) for each in value] if isinstance(value, list) else value


def _compare(artifact: Path, again: Path, temporary: Path, *, is_part: bool = False) -> WeightComparison:
    """Compare the weights of two artifacts, or of a part of the second; raises CommandFailed."""
    try:
        return compare_weights(_plain(artifact, temporary), _plain(again, temporary), is_part=is_part)
    except ValueError as error:
        raise CommandFailed(f"the model that came out here has other shapes: {error}") from error


def _plain(artifact: Path, temporary: Path) -> Path:
    """Return a folder with the files of an artifact, and its weights as dense tensors. Raises CommandFailed."""
    plain = Path(mkdtemp(dir=temporary))
    for file in artifact.glob("*.*"):
        (plain / file.name).symlink_to(file.resolve())
    try:
        unpack_folder(plain)
    except CorruptPackedFile as error:
        raise CommandFailed(f"{artifact}: {error}") from error
    return plain


def _figures(then: Report, now: Report) -> list[RepeatedFigure]:
    """Return the perplexity ratios of both reports on the same texts, by the hash of their content."""
    hashes = {name: digest for digest, name in data_of(then).items()}
    here = data_of(now)
    stated, repeated = ((report.metrics or Metrics()).perplexity or {} for report in (then, now))
    return [
        RepeatedFigure("Perplexity ratio", name, figure.ratio, other.ratio, figure.ratio_stderr or 0.0)
        for name, figure in stated.items()
        if (other := repeated.get(here.get(hashes.get(name, ""), ""))) is not None
        and figure.ratio is not None
        and other.ratio is not None
    ]
