"""Last part: wrong inputs of a newcomer, and whether each answer says what is wrong and what would be right."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx
from playwright.sync_api import expect

from bench.first_model.visit import Visit, run_secateur

USAGE: Final = 2
"""Exit code of a wrong call."""
WRONG_KEY: Final = "sct_of_somebody_else"


@dataclass(frozen=True)
class WrongInput:
    """Wrong input: what is typed, the words that its answer must have, and variables that the command runs with.

    `{model}` in the arguments is the name of the registered model, and `{body}` the path of a job body that is `body`.
    """

    arguments: tuple[str, ...]
    words: tuple[str, ...]
    body: Mapping[str, object] | None = None
    variables: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Answer:
    """Answer to a wrong input, as it was printed or shown."""

    asked: str
    text: str
    is_helpful: bool


_SUBMIT: Final = ("submit", "{model}", "--method", "wanda", "--calibration", "self")
_BODY: Final[Mapping[str, object]] = {"model": "{model}", "method": "wanda", "calibration": {"dataset": "self"}}
WRONG_INPUTS: Final = (
    WrongInput((*_SUBMIT, "--sparsity", "50"), ("sparsity", "0.5")),
    WrongInput(("plan", "{model}", "--for", "sparsity", "--amount", "50"), ("amount", "0.5")),
    WrongInput(("submit", "{model}", "--method", "wonda", "--sparsity", "0.5"), ("method", "did you mean 'wanda'")),
    WrongInput(("submit", "--body", "{body}"), ("sparsty", "did you mean 'sparsity'"), body={**_BODY, "sparsty": 0.5}),
    WrongInput((*_SUBMIT, "--sparsity", "0.5", "--format", "paked"), ("format", "packed")),
    WrongInput((*_SUBMIT, "--sparsity", "0.5", "--export", "ggfu"), ("ggfu", "gguf")),
    WrongInput((*_SUBMIT, "--sparsity", "0.5", "--pattern", "2:3:4"), ("pattern", "n:m")),
    WrongInput(("plan", "smollm2-135", "--for", "size"), ("smollm2-135", "did you mean 'smollm2-135m'")),
    WrongInput(("prune", "no/such/folder", "-o", "{output}"), ("no/such/folder", "no such model folder")),
    WrongInput((*_SUBMIT[:-1], "wikipedia-calibraton", "--sparsity", "0.5"), ("did you mean 'wikipedia-calibration'",)),
    WrongInput(("show", "job_01zzz"), ("job_01zzz",)),
    WrongInput(("jobs",), ("401", "from SECATEUR_API_KEY"), variables={"SECATEUR_API_KEY": WRONG_KEY}),
    WrongInput(
        ("jobs",),
        ("127.0.0.1:9", "secateur serve"),
        variables={"SECATEUR_URL": "http://127.0.0.1:9", "SECATEUR_API_KEY": WRONG_KEY},
    ),
)


def try_commands(environment: Mapping[str, str], model: str, folder: Path) -> list[Answer]:
    """Type every wrong input, and return the answers."""
    return [_typed(each, environment, model, folder) for each in WRONG_INPUTS]


def try_portal(visit: Visit, url: str, key: str, model: str) -> list[Answer]:
    """Return what the portal answers to a wrong key, a search that no model matches, and a form of an expired session.

    Ends signed in, with nothing submitted.
    """
    page, answers = visit.page, []
    page.goto(f"{url}/portal/sign-in")
    page.get_by_label("API key").fill(WRONG_KEY)
    visit.click(page.get_by_role("button", name="Sign in"))
    told = page.locator("p.error").first
    told.wait_for()
    visit.reach("wrong key")
    answers.append(answer_of("portal: sign in with a wrong key", told.inner_text(), ("key",)))
    page.get_by_label("API key").fill(key)
    visit.click(page.get_by_role("button", name="Sign in"))
    page.wait_for_url("**/portal/jobs")

    asked = f"{url}/portal/new?model={model}&for=sparsity&amount=0.3"
    page.goto(asked)
    search = page.get_by_role("searchbox")
    search.fill("no-such-model")
    told = page.get_by_text("No model of your team has that name.")
    told.wait_for()
    expect(page.get_by_role("button", name="Prune it")).to_be_disabled()
    visit.reach("no such model")
    answers.append(answer_of("portal: search “no-such-model”", told.inner_text(), ("upload one",)))

    page.goto(asked)
    page.context.clear_cookies(name="secateur_session")
    visit.click(page.get_by_role("button", name="Prune it"))
    told = page.get_by_text("Your session has expired", exact=False).first
    told.wait_for()
    visit.reach("expired session")
    answers.append(
        answer_of("portal: “Prune it” once the session expired", told.inner_text(), ("session has expired",))
    )
    page.get_by_label("API key").fill(key)
    visit.click(page.get_by_role("button", name="Sign in"))
    page.wait_for_url("**/portal/new?**")
    sentence = page.locator(".sentence")
    sentence.wait_for()
    visit.reach("back to the same answers")
    answers.append(answer_of("portal: signed in again", sentence.inner_text(), ("30 %",)))
    return answers


def unchanged(rest: httpx.Client, before: int) -> bool:
    """Return whether no wrong input became a job."""
    return len(rest.get("/v1/jobs", params={"limit": 200}).raise_for_status().json()["data"]) == before


def _typed(wrong: WrongInput, environment: Mapping[str, str], model: str, folder: Path) -> Answer:
    body = folder / "body.json"
    if wrong.body is not None:
        body.write_text(json.dumps(wrong.body).replace("{model}", model))
    places = {"{model}": model, "{body}": str(body), "{output}": str(folder / "pruned")}
    arguments = [places.get(each, each) for each in wrong.arguments]
    ended = run_secateur(arguments, {**environment, **(wrong.variables or {})})
    shown = " ".join(each.replace(f"{folder}/", "") for each in ("secateur", *arguments))
    if wrong.variables:
        shown = " ".join([*(f"{name}={value}" for name, value in wrong.variables.items()), shown])
    answer = answer_of(shown, ended.printed, wrong.words)
    print(f"{answer.asked}\n    {answer.text}", flush=True)
    is_fault = ended.code in {1, USAGE} and "Traceback" not in ended.printed
    return Answer(answer.asked, f"{answer.text} (exit code {ended.code})", answer.is_helpful and is_fault)


def answer_of(asked: str, text: str, words: tuple[str, ...]) -> Answer:
    told = re.sub(r"[│╭╮╰╯─]+", " ", text)  # frame of a wrong call
    told = " ".join(told.split())
    return Answer(asked, told, all(word in told for word in words))
