"""The newcomer's script: what it reads from a terminal, and what it writes into its page."""

from pathlib import Path

from bench.first_model.__main__ import Script, write_page
from bench.first_model.own_model import printed_progress
from bench.first_model.visit import Step
from bench.first_model.wrong_inputs import answer_of

PAGE = "".join(
    f"<!-- first-model-{each} -->\nas it was\n<!-- /first-model-{each} -->\n" for each in ("demo", "answers")
)


def test_the_newest_progress_is_read_from_what_a_command_printed() -> None:
    assert printed_progress("secateur: starting a server\n04:00:00  queued\n") == 0
    printed = (
        "04:00:01  prune, 4 to 41 min left\n04:00:09   11%, 52 s left\n04:00:17   44%  block 10 of 30, 3 min left\n"
    )
    assert printed_progress(printed) == 0.44


def test_an_answer_helps_if_it_has_every_word_whatever_frame_it_stands_in() -> None:
    framed = "╭─ Error ─╮\n│ --format: did you │\n│ mean 'packed'?    │\n╰─────────╯\n"
    answer = answer_of("secateur submit", framed, ("--format", "did you mean 'packed'"))
    assert answer.is_helpful and answer.text == "Error --format: did you mean 'packed'?"
    assert not answer_of("secateur submit", framed, ("'dense'",)).is_helpful


def test_the_page_gets_the_parts_that_were_run_and_keeps_the_others(tmp_path: Path) -> None:
    page, picture = tmp_path / "page.md", tmp_path / "portal" / "demo-1-end-phone.png"
    page.write_text(PAGE)
    script = Script(tmp_path, tmp_path)
    script.steps["demo"] = [Step("demo", "its end", 283.4, 3, {"phone": picture})]
    write_page(script, page)
    written = page.read_text()
    assert "| its end |     283 |      3 | [phone](portal/demo-1-end-phone.png) |" in written
    assert written.count("as it was") == 1
