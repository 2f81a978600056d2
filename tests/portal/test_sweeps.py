"""Sweeps in the portal: listed, started, followed, cancelled."""

import pytest
from playwright.sync_api import Page, expect

from api.portal.routes.sweeps import field_of, read_sweep
from api.portal.session import Form
from secateur_wire.errors import InvalidRequest
from tests.portal.conftest import POLLED_WITHIN
from tests.sweeps.conftest import Sweeps, grid_body, search_body, sweeps  # noqa: F401

DEEP = "[" * 4000 + "]" * 4000
"""JSON that takes a parser without limits too many levels down."""


def test_a_sweep_is_started_followed_and_read(
    portal: Page,
    sweeps: Sweeps,  # noqa: F811
    model: str,
    dataset: str,
) -> None:
    portal.goto("/portal/sweeps")
    expect(portal.get_by_text("No sweeps yet")).to_be_visible()
    portal.get_by_role("link", name="Start a first sweep").click()
    portal.get_by_label("Name").fill("how far tiny goes")
    portal.get_by_role("combobox", name="Model").fill(model)
    portal.get_by_label("Sparsities").fill("0.3, 1.5")
    portal.get_by_label("Magnitude").first.check()
    portal.get_by_label("Datasets").fill(dataset)
    portal.get_by_label("Samples of each").fill("4")
    portal.get_by_label("Sequence length").fill("32")
    portal.get_by_role("button", name="Start the sweep").click()
    expect(portal.get_by_role("alert")).to_contain_text("1 of 2 points cannot be run: (method=magnitude, sparsity=1.5)")
    portal.get_by_label("Sparsities").fill("0.3, 0.5")
    portal.clock.install()
    portal.get_by_role("button", name="Start the sweep").click()
    expect(portal.get_by_role("heading", name="how far tiny goes")).to_be_visible()
    expect(portal.get_by_text("0 of 2 points succeeded, 2 to come.")).to_be_visible()
    sweep_id = portal.url.rpartition("/")[2]
    sweeps.finish(sweep_id)
    portal.clock.run_for(POLLED_WITHIN)
    expect(portal.get_by_text("2 of 2 points succeeded.")).to_be_visible()
    portal.reload()
    row = portal.get_by_role("region", name="Points").get_by_role("row", name="magnitude · 50%")
    expect(row).to_contain_text("Fewest parameters")
    expect(portal.get_by_text("was measured once, by")).to_be_visible()
    plot = portal.get_by_role("group", name="every point opens its job")
    expect(plot.get_by_role("link")).to_have_count(2)
    with portal.expect_download() as download:
        portal.get_by_role("link", name="Its figures as CSV").click()
    assert len(download.value.path().read_text().splitlines()) == 4, "two points, and the dense model"
    portal.goto("/portal/sweeps")
    expect(portal.get_by_role("row", name="how far tiny goes")).to_contain_text("2 of 2")


def test_the_form_means_a_body_and_what_cannot_be_read_stays_text_or_is_refused() -> None:
    grid = {
        "name": ["mine"], "model": ["tiny"], "method": ["wanda", "magnitude"], "sparsities": ["0.3, half 2"],
        "calibration.dataset": ["text"], "calibration.samples": ["8"], "sequence_length": ["32"],
        "evaluation.datasets": ["text, other"], "evaluation.samples": ["many"], "max_concurrent": ["2"],
        "varied": ['parameters.block_size = [64, 128]\npattern=["2:4"]'],
    }  # fmt: skip
    assert read_sweep(Form(grid)) == {
        "name": "mine",
        "max_concurrent": 2,
        "job": {
            "model": "tiny",
            "calibration": {"dataset": "text", "samples": 8, "sequence_length": 32},
            "evaluation": {"datasets": ["text", "other"], "samples": "many", "sequence_length": 32},
        },
        "grid": {
            "method": ["wanda", "magnitude"],
            "sparsity": [0.3, "half", 2],
            "parameters.block_size": [64, 128],
            "pattern": ["2:4"],
        },
    }
    for line in ("parameters.block_size = 64", f"a = {DEEP}"):
        with pytest.raises(InvalidRequest, match="write a path and a list of values") as refused:
            read_sweep(Form({"varied": [line]}))
        assert field_of(refused.value.param) == "varied"
