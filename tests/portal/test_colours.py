"""Colours that are looked at once: none slips through, and what is at fault is so each time."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page

from tests.portal.axe_core import load_axe
from tests.portal.colours import Scheme, faulty_colours

PAGE = """
<html lang="en"><head><title>Colours</title><style>
    body {{ background: #fff; color: #000 }}
    @media (prefers-color-scheme: dark) {{ body {{ background: #111; color: #eee }} .faint {{ color: #333 }} }}
    {style}
</style></head><body><main><h1>Colours</h1><p>Well to be read</p>{more}</main></body></html>
"""


def faults(page: Page, scheme: Scheme, more: str, style: str = "") -> list[str]:
    """Return the texts axe-core finds fault with on a page with this in it."""
    page.emulate_media(color_scheme=scheme)
    page.set_content(PAGE.format(more=more, style=style))
    load_axe(page)
    violations = faulty_colours(page, scheme).response["violations"]
    return [node["html"] for violation in violations for node in violation["nodes"]]


@pytest.fixture(scope="module")
def page(browser: Browser) -> Iterator[Page]:
    with browser.new_context() as context:
        yield context.new_page()


@pytest.mark.parametrize(
    ("more", "style", "schemes"),
    [
        ('<p class="faint">faint</p>', "", ["dark"]),
        (
            '<div class="box"><p>in a box</p></div>',
            ".box { background: #777 } p { color: #888 !important }",
            ["light", "dark"],
        ),
        ('<p class="thin">thin</p>', ".thin { opacity: 0.2 }", ["light", "dark"]),
        (
            '<p hidden class="pale">pale</p><p class="pale">pale</p>',
            ".pale { color: #7a7a7a; font-size: 9px }",
            ["light", "dark"],
        ),
        ('<p>read <a href="#" style="color: #1a1a1a; text-decoration: none">this</a> too</p>', "", ["light", "dark"]),
    ],
    ids=["in dark alone", "on another ground", "translucent", "hidden elsewhere", "a link like its text"],
)
def test_a_page_with_one_fault_fails_whatever_was_looked_at_before(
    page: Page, more: str, style: str, schemes: list[Scheme]
) -> None:
    every: tuple[Scheme, ...] = ("light", "dark")
    for scheme in every:
        assert faults(page, scheme, "") == []
        assert bool(faults(page, scheme, more, style)) == bool(faults(page, scheme, more, style)) == (scheme in schemes)
