"""Costs of a model's parts in the portal: looked at, measured on demand, refused at the field."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session, sessionmaker

from core.database import transaction
from core.service.questions.tables import QuestionRow
from core.settings import Settings
from core.storage import Store
from tests.measured_parts import measured_report, saying
from tests.portal.browserless import Browserless
from worker.supervisor.part_cost_measurer import PartCostMeasurer


@pytest.fixture
def somebody(live_api: httpx.Client, member_key: str) -> Iterator[Browserless]:
    somebody = Browserless(live_api, member_key)
    yield somebody
    somebody.close()


def test_costs_are_measured_from_their_page(
    somebody: Browserless, model: str, sessions: sessionmaker[Session], settings: Settings, store: Store, tmp_path: Path
) -> None:
    assert '/costs">How long its parts take' in somebody.main(f"/portal/models/{model}")
    page = f"/portal/models/{model}/costs"
    work = {"engine": "llama-cpp", "type": "F16", "threads": "1", "prompt_tokens": "8", "context_tokens": "16"}
    shown = f"{page}?{httpx.QueryParams(work)}"
    assert "Not measured yet." in somebody.main(shown)
    refused = somebody.post(shown, page, work | {"context_tokens": "4"})
    assert refused.status_code == 422 and "give a number from prompt_tokens, 8, to 40" in refused.text
    asked = somebody.post(shown, page, work)
    assert asked.status_code == 303
    assert "A worker will measure it" in somebody.main(asked.headers["location"])
    with transaction(sessions) as session:
        assert session.scalars(select(QuestionRow.kind)).all() == ["part-costs default llama-cpp"]
    measurer = PartCostMeasurer(store, settings, command=saying(tmp_path, measured_report()))
    assert measurer.take_next(sessions)
    main = somebody.main(shown)
    assert "24 channels of an FFN" in main and "18.50 ± 0.00 ms for the prompt" in main and "Measure again" in main
