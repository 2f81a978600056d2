"""Policies of retention, set on the command line and in the portal's form: the same either way."""

import httpx
import pytest

from tests.client.command_line import RunHere
from tests.portal.browserless import Browserless

PAGE = "/portal/team/retention"
OPTIONS = ("--keep-days", "30", "--keep-tagged", "release=yes")
FIELDS = {
    "keep_days": "30",
    "tagged": "release = yes",
}


def test_the_command_and_the_form_set_try_and_clear_the_same_policy(
    here: RunHere, live_api: httpx.Client, admin_key: str
) -> None:
    def policy() -> object:
        return live_api.get("/v1/team/retention").json()["policy"]

    assert "the team has no policy: give --keep-days" in here("retention", "preview").err
    assert here("retention", "set", *OPTIONS).code == 0
    by_command = policy()
    assert here("retention", "show", "--json").json["policy"] == by_command
    shown = " ".join(here("retention", "show").out.split())
    for said in ("the last 30 days", "those with release=yes"):
        assert said in shown
    for tried in (here("retention", "preview"), here("retention", "preview", "--keep-days", "1")):
        assert tried.out == "0 artifacts would go, 0 stay; 0 B freed.\n"
    assert here("retention", "clear").out == "Everything is kept.\n" and policy() is None

    somebody = Browserless(live_api, admin_key)
    assert somebody.post(PAGE, PAGE, FIELDS | {"what": "preview"}).status_code == 200 and policy() is None
    assert somebody.post(PAGE, PAGE, FIELDS | {"what": "set"}).status_code == 303 and policy() == by_command
    page = somebody.main(PAGE)
    assert 'value="30"' in page and "release=yes" in page
    wrong = somebody.post(PAGE, PAGE, FIELDS | {"what": "set", "keep_days": "-1"})
    assert 'aria-invalid="true"' in wrong.text and policy() == by_command
    assert somebody.post(PAGE, PAGE, {"what": "clear"}).status_code == 303 and policy() is None
    somebody.close()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ((), "give --keep-days, the days to keep every artifact"),
        (("--keep-tagged", "release=yes"), "give --keep-days, the days to keep every artifact"),
        (("--keep-days", "3", "--keep-tagged", "release"), "--keep-tagged 'release': write KEY=VALUE"),
    ],
)
def test_options_that_say_no_policy_are_refused(here: RunHere, options: tuple[str, ...], told: str) -> None:
    done = here("retention", "set", *options)
    assert done.code == 2 and told in " ".join(done.err.split())
