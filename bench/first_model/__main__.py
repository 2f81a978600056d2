"""Way of a newcomer: `python -m bench.first_model [PART …] [--write docs/portal] [--page docs/first-model.md]`.

A service of its own in folders that are thrown away, a real browser, and the commands that are installed:

- `sample`: from an empty portal to a pruned model that runs; nothing is typed but the key.
- `demo`: `secateur demo` in an empty home.
- `own`: a folder that is dropped on the portal is pruned, its runner killed in the middle; then the same folder by
  `secateur prune`, killed with its server in the middle, and run again.
- `wrong`: wrong inputs, by the command line and in the portal.

Prints each step with its seconds and clicks, takes its pictures, and writes both to the page. Ends with 1 where the
sample takes more than six clicks, what was downloaded does not write text with transformers, an answer to a wrong input
does not say what would be right, or a wrong input became a job.
"""

import argparse
import os
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import httpx
from playwright.sync_api import Page

from bench.browser import chromium
from bench.first_model.own_model import prune_by_command, prune_in_portal
from bench.first_model.sample import PROMPT, prune_sample, written_by
from bench.first_model.visit import DESKTOP, Step, Visit, run_secateur
from bench.first_model.wrong_inputs import Answer, try_commands, try_portal, unchanged
from bench.machine import describe_machine
from bench.page import table, write_section
from core.settings import Settings
from worker.embedded.instance import open_instance
from worker.embedded.serving import serving
from worker.samples.language import CALIBRATION, MODEL, add_samples

MOST_CLICKS: Final = 6
PARTS: Final = ("sample", "demo", "own", "wrong")
OWN_MODEL: Final = "my-model"


@dataclass
class Script:
    """Run of the script: where its homes and pictures are, and what came of it."""

    place: Path
    pictures: Path
    steps: dict[str, list[Step]] = field(default_factory=dict)
    answers: list[Answer] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    @property
    def home(self) -> Path:
        return self.place / "home"

    @property
    def terminal(self) -> dict[str, str]:
        """Return the variables of a terminal whose home is another, empty at first."""
        return {**os.environ, "SECATEUR_HOME": str(self.place / "terminal")}

    def look(self, parts: Sequence[str]) -> None:
        """Go through the parts in the portal, and through the wrong inputs of the command line."""
        os.environ["SECATEUR_HOME"] = str(self.home)  # of the service's processes
        settings = Settings(home=self.home)
        with serving(settings, print) as url, chromium() as browser:
            page = browser.new_context(viewport={**DESKTOP}).new_page()
            key = (self.home / "api-key").read_text().strip()
            if "sample" in parts:
                self._prune_sample(Visit("first-model", page, self.pictures), url, key)
            else:
                with open_instance(settings) as opened:
                    add_samples(opened, print)
                page.context.request.post(f"{url}/portal/sign-in", form={"key": key}, max_redirects=0)
            with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}, timeout=60) as rest:
                if "own" in parts:
                    visit = Visit("own-model", page, self.pictures)
                    prune_in_portal(visit, rest, self.home, self._own_folder())
                    self.steps["own"] = visit.steps
                if "wrong" in parts:
                    self._try_wrong_inputs(page, rest, key)

    def work(self, parts: Sequence[str]) -> None:
        """Go through the parts of the terminal."""
        if "demo" in parts:
            ended = run_secateur(["demo"], self.terminal)
            print(ended.printed)
            self.steps["demo"] = [Step("demo", "secateur demo, to its end", ended.seconds)]
            if ended.code != 0:
                self.faults.append(f"the demo ended with {ended.code}")
        if "own" in parts:
            text = self.home / "datasets" / f"{CALIBRATION}.jsonl"
            self.steps["own"] += prune_by_command(self.terminal, self._own_folder(), text, self.place / "pruned")

    def _prune_sample(self, visit: Visit, url: str, key: str) -> None:
        downloads = self.place / "downloads"
        downloads.mkdir()
        folder = prune_sample(visit, url, key, downloads)
        self.steps["sample"] = visit.steps
        text = written_by(folder)
        print(f"It writes: {text}")
        if visit.clicks > MOST_CLICKS:
            self.faults.append(f"the sample took {visit.clicks} clicks")
        if not text.startswith(PROMPT) or len(text) <= len(PROMPT):
            self.faults.append(f"the downloaded model writes {text!r}")

    def _try_wrong_inputs(self, page: Page, rest: httpx.Client, key: str) -> None:
        jobs = len(rest.get("/v1/jobs", params={"limit": 200}).raise_for_status().json()["data"])
        folder = self.place / "wrong"
        folder.mkdir()
        self.answers += try_commands({**os.environ, "COLUMNS": "1000"}, MODEL, folder)
        visit = Visit("wrong-input", page, self.pictures)
        self.answers += try_portal(visit, str(rest.base_url).rstrip("/"), key, MODEL)
        self.steps["wrong"] = visit.steps
        self.faults += [f"no help in: {each.asked}: {each.text}" for each in self.answers if not each.is_helpful]
        if not unchanged(rest, jobs):
            self.faults.append("a wrong input became a job")

    def _own_folder(self) -> Path:
        """Return a folder with a model such as somebody has on their disk: the sample's, under another name."""
        folder = self.place / OWN_MODEL
        if not folder.exists():
            shutil.copytree(self.home / "models" / MODEL, folder)
        return folder


_ESCAPED = re.compile(r"[|\[\]]")
"""What Markdown would read as cells or links."""


def write_page(script: Script, page: Path) -> None:
    """Write the steps and the answers of the parts that were run, each into its section of the page."""
    for part, steps in script.steps.items():
        header = ("step", "seconds", "clicks", "pictures")
        rows = [
            (each.name, f"{each.seconds:.0f}", "" if each.clicks is None else str(each.clicks), _links(each, page))
            for each in steps
        ]
        load = os.getloadavg()[2]
        machine = f"On {describe_machine()}, with a load of {load:.0f} in the last 15 minutes."
        write_section(page, f"first-model-{part}", f"{machine}\n\n{table(header, rows, text_columns=1)}")
    if script.answers:
        answers = [(f"`{each.asked}`", _ESCAPED.sub(r"\\\g<0>", each.text)) for each in script.answers]
        write_section(page, "first-model-answers", table(("typed", "answer"), answers))


def _links(step: Step, page: Path) -> str:
    return ", ".join(f"[{view}]({os.path.relpath(file, page.parent)})" for view, file in step.pictures.items())


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.first_model", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}; all without one")
    parser.add_argument("--write", type=Path, default=Path("docs/portal"), metavar="FOLDER", help="for the pictures")
    parser.add_argument("--page", type=Path, help="gets the steps and the answers, such as docs/first-model.md")
    options = parser.parse_args(arguments)
    parts = options.parts or PARTS
    if unknown := set(parts) - set(PARTS):
        parser.error(f"{', '.join(sorted(unknown))} is no part: name some of {', '.join(PARTS)}")
    options.write.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="secateur-first-model-") as temporary:
        script = Script(Path(temporary), options.write)
        if set(parts) - {"demo"}:
            script.look(parts)
        script.work(parts)
    if options.page is not None:
        write_page(script, options.page)
    print(*script.faults, sep="\n")
    return 1 if script.faults else 0


if __name__ == "__main__":
    sys.exit(main())
