"""Resolution of zero-shot tasks: tasks of the catalogue, with the commit of the hub dataset of their questions."""

from collections.abc import Sequence

from core.engine.evaluation.zero_shot_tasks import TASKS
from core.errors import InvalidRequest
from core.service.jobs.resolution.hub_lookup import HubFindings
from core.service.sources.hub_datasets import HubDataset
from core.service.sources.references import HubText, TaskReference


def resolve_tasks(names: Sequence[str], hub: HubFindings) -> list[TaskReference]:
    """Return the tasks of these names; raises InvalidRequest for one unknown or repeated, and errors of its look-up.

    A task that was not looked up on the hub has a local copy in this service's home.
    """
    for index, name in enumerate(names):
        param = f"evaluation.tasks.{index}"
        if name not in TASKS:
            raise InvalidRequest(f"{param}: there is no task {name!r}; there is {', '.join(TASKS)}", param=param)
        if name in names[:index]:
            raise InvalidRequest(f"{param}: {name!r} is named twice", param=param)
    return [_reference(name, hub.task(name, f"evaluation.tasks.{index}")) for index, name in enumerate(names)]


def _reference(name: str, dataset: HubDataset | None) -> TaskReference:
    hub = dataset and HubText(
        name=name,
        repository=dataset.repository,
        revision=dataset.revision,
        config=dataset.config,
        split=dataset.split,
        use="evaluation",
        characters=None,
        is_public=dataset.is_public,
    )
    return TaskReference(name=name, hub=hub)
