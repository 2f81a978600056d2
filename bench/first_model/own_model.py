"""Parts with a model of one's own: by the portal, whose runner is killed, and by the command line, which is killed."""

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import httpx
from playwright.sync_api import expect

from bench.chaos.processes import children, runners
from bench.first_model.visit import WAIT_SECONDS, Step, Visit, run_secateur, secateur_command

GOAL: Final = "sparsity"
"""Goal whose job is the shortest: the script is about the way to it."""
METHOD: Final = "wanda"
"""Method that is chosen in the portal in place of the planned one: it takes a tenth of its time."""
CUT_FROM: Final = 0.3
"""Progress from which the work is cut off, in the middle of the pruning pass."""
_MILLISECONDS: Final = WAIT_SECONDS * 1000
_LOOK_SECONDS: Final = 0.5


def prune_in_portal(visit: Visit, rest: httpx.Client, home: Path, folder: Path) -> None:
    """Upload the folder by drag and drop, prune it, kill its runner in the middle, and see the job to its end."""
    page = visit.page
    page.goto(f"{rest.base_url.copy_with(path='/portal/jobs')}")
    visit.click(page.get_by_role("link", name="Models", exact=True).first)
    visit.click(page.get_by_role("link", name="Upload a model"))
    _drop(visit, folder)
    expect(page.locator("#notices")).to_contain_text("files are chosen")
    visit.reach("folder dropped")
    visit.click(page.get_by_role("button", name="Upload", exact=True))
    page.get_by_role("heading", name=folder.name, exact=True).wait_for(timeout=_MILLISECONDS)
    visit.reach("uploaded")
    visit.click(page.get_by_role("link", name="Prune this model"))
    visit.click(page.get_by_role("radio", name="Sparse for a runtime of mine"))
    expect(page.locator(".sentence")).to_contain_text("prunable weights", timeout=_MILLISECONDS)
    expect(page.get_by_role("button", name="Prune it")).to_be_enabled(timeout=_MILLISECONDS)
    visit.reach("three answers")
    visit.click(page.get_by_role("link", name="Change anything"))
    chosen = page.locator(f'input[name="method"][value="{METHOD}"]')
    visit.click(page.locator("details.method-group", has=chosen).locator("summary"))
    visit.click(chosen)
    expect(page.locator("#as-curl")).to_contain_text(METHOD, timeout=_MILLISECONDS)
    visit.reach("another method")
    visit.click(page.get_by_role("button", name="Submit job"))
    page.wait_for_url("**/portal/jobs/job_*", timeout=_MILLISECONDS)
    job = page.url.rpartition("/")[2]

    def current() -> dict[str, Any]:
        answer: dict[str, Any] = rest.get(f"/v1/jobs/{job}").raise_for_status().json()
        return answer

    _wait(lambda: current()["progress"] >= CUT_FROM)
    visit.reach("half done")
    before = current()["progress"]
    _kill_runner(home)
    _wait(lambda: current()["attempt"] == 2 and current()["progress"] > 0)
    page.get_by_text("attempt 2").first.wait_for(timeout=_MILLISECONDS)
    visit.reach("cut off and resumed")
    print(f"cut off at {before:.0%}; the second attempt began at {current()['progress']:.0%}", flush=True)
    page.locator(".badge.succeeded").first.wait_for(timeout=_MILLISECONDS)
    page.evaluate("window.scrollTo(0, 0)")
    visit.reach("own result")


def prune_by_command(environment: Mapping[str, str], folder: Path, text: Path, output: Path) -> list[Step]:
    """Run `secateur prune` on the folder and a text, kill it with its server in the middle, and run it again.

    Returns the steps.
    """
    part, began = "command line", time.monotonic()
    arguments = ["prune", str(folder), "-o", str(output), "--for", GOAL, "--calibration", str(text)]
    log = output.with_suffix(".log")
    with open(log, "wb") as printed:
        first = subprocess.Popen(
            secateur_command(arguments),
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=printed,
            stderr=subprocess.STDOUT,
        )
        _wait(lambda: first.poll() is not None or printed_progress(log.read_text(errors="replace")) >= CUT_FROM)
    if first.poll() is not None:
        raise RuntimeError(f"the command ended by itself, with {first.returncode}:\n{log.read_text(errors='replace')}")
    _kill_all(first.pid)
    first.wait()
    steps = [
        Step(part, f"killed with its server, at {printed_progress(log.read_text()):.0%}", time.monotonic() - began)
    ]
    print(steps[-1], flush=True)
    second = run_secateur(arguments, environment)
    if second.code != 0:
        raise RuntimeError(f"the same command ended with {second.code}:\n{second.printed}")
    print(second.printed, flush=True)
    went_on = next(line for line in second.printed.splitlines() if "going on with" in line)
    name = f"the same command, to its end (“{went_on.removeprefix('secateur: ')}”)"
    steps.append(Step(part, re.sub(r"job_\w+", "job_…", name), time.monotonic() - began))
    print(steps[-1], flush=True)
    return steps


def _drop(visit: Visit, folder: Path) -> None:
    """Drop a folder on the upload form, as a file manager does."""
    area = visit.page.locator("#upload").bounding_box()
    assert area is not None
    data = {"items": [], "files": [str(folder)], "dragOperationsMask": 1}
    drag = {"x": area["x"] + 9, "y": area["y"] + 9, "data": data}
    devtools = visit.page.context.new_cdp_session(visit.page)
    for what in ("dragEnter", "dragOver", "drop"):
        devtools.send("Input.dispatchDragEvent", drag | {"type": what})


def _kill_runner(home: Path) -> None:
    """Kill the process that works on the job, as a kernel does that is out of memory."""
    parts = json.loads((home / "serve.json").read_text())["parts"]
    worker = next(part["pid"] for part in parts if part["name"] == "worker")
    [runner] = [runner for pool in (worker, *children(worker)) for runner in runners(pool)]
    os.kill(runner, signal.SIGKILL)


def _kill_all(command: int) -> None:
    """Kill a command and all that it started, as a power cut does."""
    doomed = [command]
    for pid in doomed:
        doomed.extend(children(pid))
    for pid in doomed:
        os.kill(pid, signal.SIGKILL)


def printed_progress(printed: str) -> float:
    """Return the newest progress that a command printed, 0 to 1."""
    shares = re.findall(r"^[\d:]+\s+(\d+)%", printed, re.MULTILINE)
    return int(shares[-1]) / 100 if shares else 0.0


def _wait(is_there: Callable[[], bool]) -> None:
    """Wait until something is so. Raises TimeoutError where it does not come to be."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not is_there():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {WAIT_SECONDS} s")
        time.sleep(_LOOK_SECONDS)
