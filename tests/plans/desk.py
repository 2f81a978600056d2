"""A team for which plans are made, of models of which there are headers alone."""

from collections.abc import Mapping
from typing import Any

import pytest
from sqlalchemy.orm import Session, sessionmaker

from core.database import transaction
from core.engine.architectures.describe import Description
from core.service.jobs.queue import claim, finish_succeeded
from core.service.jobs.resolution.context import RequestContext
from core.service.jobs.schemas import JobBody
from core.service.jobs.service import submit
from core.service.plans.service import plan
from core.settings import Settings
from core.storage import Store, StoredFile
from secateur_wire.errors import SecateurError
from secateur_wire.plans import Goal, Plan, PlanBody
from tests.plans.models import add_model, add_set, convolutions, llama, refusing

MODELS: dict[str, Description] = {
    "smol": llama(),
    "wide": llama().model_copy(update={"dtype": "float32", "bytes": 2 * llama().bytes}),
    "large": llama(layers=32, hidden=4096, intermediate=11008, heads=32, groups=8, words=32000),
    "odd": llama(layers=3, hidden=66, intermediate=198, heads=3, groups=3, words=100),
    "narrow": llama(layers=1, hidden=16, intermediate=8, heads=2, groups=2, words=64),
    "channels": refusing(channels="they are shared"),
    "layers": refusing(channels="they are shared", layers="their numbers count"),
    "weights": refusing(weights="they are shared", channels="they are shared", layers="their numbers count"),
    "gradients": refusing(resume="a state goes from block to block"),
    "images": convolutions(),
    "other-images": convolutions(classes=7),
}

BODY = {
    "model": "smol",
    "method": "frontier",
    "sparsity": 0.4,
    "calibration": {"dataset": "my-calibration", "samples": 32, "sequence_length": 512},
    "evaluation": {"datasets": ["my-articles"], "samples": 64},
}
METRICS = {
    "perplexity": {"my-articles": {"dense": 20.0, "pruned": 23.0, "ratio": 1.15}},
    "sparsity": {"prunable": 0.4, "model": 0.316},
    "parameters": {"dense": 134_515_008, "nonzero": 92_047_680},
}


class Desk:
    """A team with header-only models, for which plans are made."""

    def __init__(self, sessions: sessionmaker[Session], settings: Settings, store: Store, team: str) -> None:
        self.sessions, self.settings, self.store, self.team = sessions, settings, store, team
        with transaction(sessions) as session:
            for name, description in MODELS.items():
                add_model(session, team, name, description)

    def register(self, *texts: str, **images: int) -> None:
        with transaction(self.sessions) as session:
            for name in texts:
                add_set(session, self.team, name)
            if images:
                add_set(session, self.team, "photos-train", **images)

    def context(self, session: Session) -> RequestContext:
        return RequestContext(session, self.team, self.store, self.settings)

    def plan(self, model: str, goal: Goal, **asked: Any) -> Plan:
        body = PlanBody(model=model, goal=goal, **asked)
        with transaction(self.sessions) as session:
            return plan(self.context(session), body)

    def refusal(self, model: str, goal: Goal, **asked: Any) -> SecateurError:
        with pytest.raises(SecateurError) as raised:
            self.plan(model, goal, **asked)
        return raised.value

    def ended_job(self, body: Mapping[str, Any], metrics: Mapping[str, Any], model: str = "smol") -> str:
        """Id of a job that ended with these figures."""
        with transaction(self.sessions) as session:
            job = submit(self.context(session), JobBody.model_validate(body)).id
            claim(session, queue="default", worker_id="worker_1", lease_seconds=60)
            described = MODELS[model].model_dump(mode="json", exclude={"linears", "structure"})
            report = {"model": described, "artifact": MODELS[model].model_dump(mode="json"), "layers": []}
            files = [StoredFile("secateur.json", 2, "0" * 64)]
            assert finish_succeeded(session, job, 1, metrics=metrics, report=report, files=files)
        return job
