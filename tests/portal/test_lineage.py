"""Lineage on a job's page: the jobs before it, and the jobs that went on from its artifact."""

from pathlib import Path

import httpx
from sqlalchemy.orm import Session, sessionmaker

from core.storage import Store
from secateur_wire.provenance import PROVENANCE
from tests.api.ended_job import FILES, succeeded_job
from tests.model_folders import write_llama


def test_the_page_of_a_job_shows_the_way_from_the_model_and_what_was_made_of_the_artifact(
    live_api: httpx.Client, admin_key: str, model: str, sessions: sessionmaker[Session], store: Store, tmp_path: Path
) -> None:
    weights = (write_llama(tmp_path / "llama") / "model.safetensors").read_bytes()
    files = {**FILES, "model.safetensors": weights, "config.json": (tmp_path / "llama" / "config.json").read_bytes()}
    signed = {**files, PROVENANCE: b"{}"}
    first = succeeded_job(live_api, sessions, store, tmp_path / "first", model=model, files=signed)
    second = succeeded_job(live_api, sessions, store, tmp_path / "second", model=f"job:{first}", files=files)
    with httpx.Client(base_url=live_api.base_url, timeout=30) as client:
        assert client.post("/portal/sign-in", data={"key": admin_key}).status_code == 303
        pages = [client.get(f"/portal/jobs/{each}").raise_for_status().text for each in (first, second)]
    ways = [page.partition('<ol class="lineage">')[2].partition("</section>")[0] for page in pages]
    assert "this job" in ways[0] and "went on to" in ways[0] and f"/portal/jobs/{second}" in ways[0]
    places = [ways[1].find(each) for each in (f"/portal/models/{model}", f"/portal/jobs/{first}", "this job")]
    assert places == sorted(places) and places[0] >= 0 and "went on to" not in ways[1]
    assert f"secateur verify {first}" in pages[0] and "secateur verify" not in pages[1]
