"""Models to choose from for a new job: recently used, registered, and artifacts of the team's jobs."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from difflib import get_close_matches

from sqlalchemy.orm import Session

from api.portal.formatting import count, size
from core.engine.architectures.description import Description
from core.methods.registry import METHODS
from core.service.jobs.resolution.hub_lookup import JOB_PREFIX
from core.service.jobs.schemas import Job
from core.service.jobs.service import list_jobs
from core.service.registry.service import list_models
from core.service.sources.hub_search import HubMatch
from secateur_wire.metrics import Metrics
from secateur_wire.models import Model, ModelSummary

_MOST_READ = 100
_MOST_SHOWN = 40
_LEAST_LIKENESS = 0.4
"""Likeness of a name to the search text: people type the beginning of a long name."""


@dataclass(frozen=True)
class ModelChoice:
    """A model: `name` for a job's body, `title` for people, and its known facts.

    `is_known` is False for a name that the page was asked for, and that no list of the team has.
    """

    name: str
    title: str
    about: str
    is_known: bool = True

    def has(self, words: Iterable[str]) -> bool:
        text = f"{self.name} {self.title} {self.about}".casefold()
        return all(word in text for word in words)


def model_choices(session: Session, team_id: str, search: str, chosen: str) -> list[ModelChoice]:
    """Return the models that match a search, recently used first; a complete hub name is a choice of its own.

    The currently chosen model comes first, unless something else is searched for; then one of just that name.
    """
    models = list_models(session, team_id, limit=_MOST_READ, after=None).data
    jobs = list_jobs(session, team_id, limit=_MOST_READ, after=None).data
    words = search.casefold().split()
    offered = {each.name: each for each in _ordered(models, jobs)}
    if "/" in search.strip("/") and search not in offered:
        offered[search] = ModelChoice(search, search, "on the hub")
    if chosen and chosen not in offered:
        offered[chosen] = ModelChoice(chosen, chosen, "on the hub" if "/" in chosen else "", is_known=False)
    matching = [each for each in offered.values() if each.has(words)]
    return sorted(matching, key=lambda each: (each.name != chosen, each.name != search))[:_MOST_SHOWN]


def nearest_models(session: Session, team_id: str, search: str) -> list[str]:
    """Return at most three names of the team's models that are most like a search without a match."""
    models = [each.name for each in list_models(session, team_id, limit=_MOST_READ, after=None).data]
    return get_close_matches(search.casefold(), models, cutoff=_LEAST_LIKENESS)


def hub_choices(matches: Iterable[HubMatch], offered: Iterable[ModelChoice]) -> list[ModelChoice]:
    """Return the models found on the hub that are not offered already."""
    names = {each.name for each in offered}
    return [ModelChoice(each.name, each.name, _popularity(each)) for each in matches if each.name not in names]


def _popularity(model: HubMatch) -> str:
    downloads = "" if model.downloads is None else f", {count(model.downloads)} downloads a month"
    return f"on the hub{downloads}{', gated' if model.is_gated else ''}"


def _ordered(models: Sequence[Model], jobs: Sequence[Job]) -> list[ModelChoice]:
    registered = {each.name: ModelChoice(each.name, each.name, _facts(each)) for each in models}
    used = [
        registered.get(each, ModelChoice(each, each, "on the hub, used before"))
        for each in dict.fromkeys(job.model for job in jobs)
        if each in registered or "/" in each
    ]
    artifacts = [
        ModelChoice(f"{JOB_PREFIX}{each.id}", f"{each.model}, pruned", _result(each))
        for each in jobs
        if _left_model(each)
    ]
    return [*used, *registered.values(), *artifacts]


def _left_model(job: Job) -> bool:
    return job.status == "succeeded" and job.method in METHODS and not METHODS[job.method].measures


def facts_of(model: ModelSummary | Description) -> str:
    """Return size and architecture of a model in one line."""
    return f"{count(model.parameters)} parameters, {size(model.bytes)}, {model.architecture}"


def _facts(model: Model) -> str:
    if model.discovery is not None and model.discovery.state == "failed":
        return "cannot be pruned"
    return facts_of(model)


def _result(job: Job) -> str:
    parts, metrics = [METHODS[job.method].title], Metrics.model_validate(job.metrics or {})
    if metrics.parameters is not None:
        parts.append(f"{count(metrics.parameters.nonzero)} parameters not zero")
    if metrics.bytes is not None and metrics.bytes.artifact:
        parts.append(size(metrics.bytes.artifact))
    return ", ".join(parts)
