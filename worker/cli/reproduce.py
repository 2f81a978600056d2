"""Command `secateur reproduce`: an artifact is pruned again on this machine, and compared with what one has."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from pydantic import JsonValue, ValidationError

from core.engine.checkpoints.weight_comparison import WeightComparison, compare_weights
from core.pipeline.recipes.recipe import Recipe
from core.pipeline.reports.manifest import Manifest
from core.pipeline.reports.provenance import data_of
from core.pipeline.reports.report import Report
from core.service.sources.folders import dataset_hash
from core.settings import Settings
from core.storage import MANIFEST
from secateur import Client
from secateur.cli.output import RETRIES, explain, print_json, say
from secateur.cli.watch import follow
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
_STDERRS: Final = 2.0
_LEAST_ERROR: Final = 1e-6


@dataclass(frozen=True)
class RepeatedFigure:
    """Perplexity ratio on a text, as the artifact states it and as it came out here."""

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
    """An artifact pruned again: how its weights compare, repeated figures, and versions that differ (then, now)."""

    job: str
    weights: WeightComparison
    figures: list[RepeatedFigure]
    versions: dict[str, tuple[str, str]]


def reproduce(settings: Settings, artifact: Path, source: Path, texts: Sequence[Path]) -> Reproduction:
    """Prune a model again by the recipe of an artifact, on this machine, and compare the weights.

    `source` is the dense model, and `texts` are the data sets that the recipe names, in any order: each is known by its
    SHA-256. A set that only evaluation names may be missing; its figures are then not repeated. Raises CommandFailed
    where the artifact, the model or a text is not what the recipe names, or where the job does not succeed.
    """
    manifest = _manifest_of(artifact)
    with serving(settings, explain) as url:
        with open_instance(settings) as instance:
            body = recipe_with(manifest, instance, source, texts)
        key = (settings.home.resolve() / "api-key").read_text().strip()
        with Client(url, key, retries=RETRIES) as client, TemporaryDirectory(dir=settings.home) as temporary:
            job = follow(client, client.submit(**body).id)  # type: ignore[arg-type]
            if job.status != "succeeded":
                raise CommandFailed(
                    f"{job.id} {job.status}: {job.error.message if job.error else 'no reason is known'}"
                )
            again = Path(temporary, "again")
            client.download(job.id, again)
            repeated = _manifest_of(again).report
            weights = _compare(artifact, again, Path(temporary))
    then, now = manifest.report.versions, repeated.versions
    return Reproduction(
        job=job.id,
        weights=weights,
        figures=_figures(manifest.report, repeated),
        versions={
            name: (then.get(name, "none"), now.get(name, "none"))
            for name in sorted({*then, *now})
            if then.get(name) != now.get(name)
        },
    )


def show_reproduction(done: Reproduction, least_masks: float, as_json: bool) -> bool:
    """Print how an artifact compares with what came out here; return whether it counts as reproduced."""
    weights = done.weights
    reproduced = (weights.is_equal or weights.mask_share >= least_masks) and all(
        each.is_within for each in done.figures
    )
    if as_json:
        print_json(
            {
                "job": done.job,
                "reproduced": reproduced,
                "tensors": weights.tensors,
                "equal_tensors": weights.equal_tensors,
                "mask_share": weights.mask_share,
                "figures": [{**vars(each), "is_within": each.is_within} for each in done.figures],
                "versions": {name: {"then": then, "now": now} for name, (then, now) in done.versions.items()},
            }
        )
        return reproduced
    if weights.is_equal:
        say(f"All {weights.tensors} tensors are equal to the last bit.")
    else:
        say(f"{weights.equal_tensors} of {weights.tensors} tensors are equal to the last bit.")
        say(f"{weights.mask_share:.4%} of the weights are zero in both or in neither.")
    for each in done.figures:
        within = "within" if each.is_within else "NOT within"
        say(
            f"Perplexity ratio on {each.text}: {each.stated:.5g} stated, {each.repeated:.5g} here; {within} two errors."
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


def recipe_with(manifest: Manifest, instance: EmbeddedInstance, source: Path, texts: Sequence[Path]) -> JsonObject:
    """Register the model and the texts, and return the recipe with their names here; raises CommandFailed."""
    stated = manifest.report.model
    assert stated is not None
    model = add_model(instance, f"source-{dataset_hash(source)[-12:]}", source, say=explain)
    if (stated.revision or "").startswith("sha256:") and model.revision != stated.revision:
        raise CommandFailed(f"{source} is another model than was pruned: {model.revision}, not {stated.revision}")
    data = data_of(manifest.report)
    names: dict[str, str] = {}
    for text in texts:
        digest = dataset_hash(text)
        if digest not in data:
            raise CommandFailed(f"{text} is none of the data sets of the recipe: {_named(data)}")
        names[data[digest]] = add_dataset(instance, f"text-{digest[:12]}", text).name
    recipe = Recipe.load(manifest.recipe)
    measured = {"datasets": [each for each in recipe.evaluation.datasets if each in names], **_UNMEASURED}
    changes: dict[str, object] = {
        "model": model.name,
        "evaluation": recipe.evaluation.model_copy(update=measured),
        "output": recipe.output.model_copy(update={"exports": []}),
    }
    if manifest.report.target is not None:  # what it came to: a latency would be searched for anew
        changes |= {"target": None, "sparsity": manifest.report.target.sparsity}
    body = recipe.model_copy(update=changes).body()
    wanted: JsonObject = {name: value for name, value in body.items() if name not in _DROPPED}
    renamed = _renamed(wanted, names)
    assert isinstance(renamed, dict)
    if missing := sorted(set(_datasets(wanted)) - {*names, _OWN_TEXT}):
        needed = {digest: name for digest, name in data.items() if name in missing}
        raise CommandFailed(f"the recipe needs data that --text does not give: {_named(needed) or ', '.join(missing)}")
    return renamed


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


def _compare(artifact: Path, again: Path, temporary: Path) -> WeightComparison:
    """Compare the weights of two artifacts; packed ones are unpacked in a copy. Raises CommandFailed."""
    folders = []
    for number, folder in enumerate((artifact, again)):
        plain = temporary / f"plain-{number}"
        plain.mkdir()
        for file in folder.glob("*.*"):
            (plain / file.name).symlink_to(file.resolve())
        try:
            unpack_folder(plain)
        except CorruptPackedFile as error:
            raise CommandFailed(f"{folder}: {error}") from error
        folders.append(plain)
    try:
        return compare_weights(*folders)
    except ValueError as error:
        raise CommandFailed(f"the model that came out here has other shapes: {error}") from error


def _figures(then: Report, now: Report) -> list[RepeatedFigure]:
    """Return the perplexity ratios of both reports on the same texts, by the hash of their content."""
    hashes = {name: digest for digest, name in data_of(then).items()}
    here = data_of(now)
    stated, repeated = ((report.metrics or Metrics()).perplexity or {} for report in (then, now))
    return [
        RepeatedFigure(name, figure.ratio, other.ratio, figure.ratio_stderr or 0.0)
        for name, figure in stated.items()
        if (other := repeated.get(here.get(hashes.get(name, ""), ""))) is not None
        and figure.ratio is not None
        and other.ratio is not None
    ]
