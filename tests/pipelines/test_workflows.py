"""The workflows for GitHub Actions and GitLab CI: valid, and their scripts executed as they stand."""

import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from junitparser import JUnitXml

from tests.client.command_line import RunHere
from tests.pipelines.forges import TOKEN, serving_forge
from tests.pipelines.service import EXAMPLES, PROGRAMS, Service

GITHUB, GITLAB = EXAMPLES / "github-actions.yml", EXAMPLES / "gitlab-ci.yml"
COMMENT, GET_KEY = EXAMPLES / "comment.py", EXAMPLES / "get_key.py"
CLIENT = {"SECATEUR_CLIENT": "secateur", "PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
"""The client is installed already, and pip finds that out without asking anybody."""


@pytest.fixture
def without_pip(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Installing the client takes pip seconds to find nothing to do: one workflow does it, the others only ask."""
    folder = tmp_path_factory.mktemp("bin")
    stub = folder / "python"
    install = f"-m pip install {CLIENT['SECATEUR_CLIENT']}"
    stub.write_text(f'#!/bin/sh\n[ "$*" = "{install}" ] || exec {sys.executable} "$@"\n')
    stub.chmod(0o700)
    monkeypatch.setattr("tests.pipelines.service.PROGRAMS", [str(folder), *PROGRAMS])


@pytest.mark.parametrize("kind", ["github", "gitlab"])
def test_the_first_comment_is_written_and_the_next_changes_it(
    kind: Literal["github", "gitlab"], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (text := tmp_path / "summary.md").write_text("### it went")
    with serving_forge(kind) as forge:
        for name, value in {**forge.variables, "GITHUB_TOKEN": TOKEN}.items():
            monkeypatch.setenv(name, value)
        for name in ("prune", "prune", "other"):
            monkeypatch.setenv("COMMENT_NAME", name)
            subprocess.run([sys.executable, COMMENT, text], check=True, timeout=60)
        forge.open = False
        subprocess.run([sys.executable, COMMENT, text], check=True, timeout=60)
    assert sorted(forge.comments.values()) == [f"<!-- secateur:{name} -->\n### it went" for name in ("other", "prune")]
    assert forge.calls == ["GET", "POST", "GET", "PUT" if kind == "gitlab" else "PATCH", "GET", "POST"]


def read(file: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.load(file.read_text(), yaml.BaseLoader)  # else `on` is a truth value
    return found


@pytest.mark.parametrize(("file", "schema"), [(GITHUB, "vendor.github-workflows"), (GITLAB, "vendor.gitlab-ci")])
def test_a_workflow_is_what_its_schema_says(file: Path, schema: str) -> None:
    command = [str(Path(sys.executable).with_name("check-jsonschema")), "--builtin-schema", schema]
    checked = subprocess.run([*command, file], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout


@dataclass
class Actions:
    """The one job of a workflow of GitHub Actions, on this machine: its `run` steps with GitHub's own command line, in
    order, after a failure only those whose condition says so. What would be uploaded is noted.
    """

    service: Service
    folder: Path
    cancelled: bool = False
    code: int = 0
    said: str = ""
    outputs: dict[str, str] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=lambda: {"SECATEUR_API_KEY": ""})
    """Variables that steps set for those after them."""
    uploaded: dict[str, str] = field(default_factory=dict)

    def run(self, workflow: Mapping[str, Any]) -> "Actions":
        (job,) = workflow["jobs"].values()
        place = self.folder / ".github" / "workflows"
        place.mkdir(parents=True, exist_ok=True)
        for each in (COMMENT, GET_KEY):
            shutil.copy(each, place)
        shared = {name: self._filled(value) for name, value in job["env"].items()}
        if workflow["permissions"].get("id-token") == "write":
            self.service.issuer.run_claims = {**self.service.run_claims()}
            shared["ACTIONS_ID_TOKEN_REQUEST_URL"] = f"{self.service.issuer.issuer}/run-token?api-version=2.0"
            shared["ACTIONS_ID_TOKEN_REQUEST_TOKEN"] = "of the run"
        for number, step in enumerate(job["steps"]):
            condition = step.get("if", "${{ success() }}")
            is_due = {
                "${{ success() }}": self.code == 0 and not self.cancelled,
                "${{ !cancelled() }}": not self.cancelled,
                "${{ cancelled() }}": self.cancelled,
            }[condition]
            if is_due and "run" in step:
                self._execute(number, step, shared)
            elif is_due and step["uses"].startswith("actions/upload-artifact@"):
                if (self.folder / step["with"]["path"]).exists():
                    self.uploaded[step["with"]["name"]] = step["with"]["path"]
                else:
                    assert step["with"].get("if-no-files-found") != "error"
        return self

    def _execute(self, number: int, step: Mapping[str, Any], shared: Mapping[str, str]) -> None:
        script = self.folder / f"step-{number}.sh"
        script.write_text(step["run"])
        output = self.folder / f"output-{number}"
        output.touch()
        (environment := self.folder / f"environment-{number}").touch()
        own = {name: self._filled(value) for name, value in step.get("env", {}).items()}
        files = {"GITHUB_OUTPUT": str(output), "GITHUB_ENV": str(environment)}
        files["GITHUB_STEP_SUMMARY"] = str(self.folder / "step-summary.md")
        variables = {**CLIENT, **self.environment, **shared, **own, **files}
        done = self.service.step(["bash", "-e", str(script)], self.folder, variables)
        if step.get("continue-on-error") != "true":
            self.code = self.code or done.code
        self.said += done.out + done.err
        for line in output.read_text().splitlines():
            name, _, value = line.partition("=")
            self.outputs[f"steps.{step['id']}.outputs.{name}"] = value
        self.environment |= dict(line.split("=", 1) for line in environment.read_text().splitlines())

    def _filled(self, text: str) -> str:
        known = {
            "vars.SECATEUR_URL": self.service.url,
            "vars.SECATEUR_CLIENT": CLIENT["SECATEUR_CLIENT"],
            "vars.SECATEUR_AUDIENCE": self.service.audience,
            "github.sha": "c0ffee",
            "github.run_id": self.folder.name,
            "github.run_attempt": "1",
            "github.token": TOKEN,
        }
        return re.sub(r"\$\{\{ (\S+) \}\}", lambda found: {**known, **self.outputs}.get(found[1], ""), text)


def test_the_github_workflow_uploads_a_model_that_keeps_its_gates(service: Service, tmp_path: Path) -> None:
    done = Actions(service, tmp_path).run(read(GITHUB))
    assert done.code == 0, done.said
    assert done.uploaded == {"pruned": "pruned", "gates": "gates.xml"}
    assert (tmp_path / "pruned" / "model.safetensors").is_file()
    assert "| perplexity on wikipedia-articles | 10 | 20 | × 2 |" in (tmp_path / "step-summary.md").read_text()
    job = service.job(done.outputs["steps.submit.outputs.job"])
    assert job["metadata"] == {"commit": "c0ffee"}
    assert f"::add-mask::{done.environment['SECATEUR_API_KEY']}" in done.said, "the log would show the key"


def test_a_cancelled_github_workflow_stops_its_job(service: Service, secateur: RunHere, tmp_path: Path) -> None:
    service.behave(hang_in="prune")
    job_id = secateur(*["submit", "smollm2-135m", "--method", "magnitude", "--sparsity", "0.5", "--id"]).out.strip()
    outputs = {"steps.submit.outputs.job": job_id}
    key = {"SECATEUR_API_KEY": service.key}  # as the step before has set it
    done = Actions(service, tmp_path, cancelled=True, outputs=outputs, environment=key).run(read(GITHUB))
    assert done.code == 0 and done.uploaded == {}
    assert service.job(job_id)["status"] in ("cancelling", "cancelled")
    assert Actions(service, tmp_path, cancelled=True).run(read(GITHUB)).code == 0, "cancelled before it submitted"


@pytest.mark.usefixtures("without_pip")
@pytest.mark.parametrize(("ratio", "code"), [pytest.param(2.0, 0, marks=pytest.mark.nightly), (3.0, 3)])
def test_the_gitlab_job_ends_as_its_gates_do(service: Service, tmp_path: Path, ratio: float, code: int) -> None:
    service.behave(ratio=ratio)
    job = read(GITLAB)["prune"]
    script = "\n".join(["set -eo pipefail", *job["before_script"], *job["script"]])  # as GitLab's runner joins them
    (tmp_path / "ci").mkdir()
    for each in (COMMENT, GET_KEY):
        shutil.copy(each, tmp_path / "ci")
    assert set(job["id_tokens"]) == {"SECATEUR_TOKEN"}
    given = {"SECATEUR_TOKEN": service.run_token(), "SECATEUR_API_KEY": ""}
    with serving_forge("gitlab") as forge:
        variables = {**CLIENT, **forge.variables, **given, "CI_COMMIT_SHA": "c0ffee", "CI_JOB_ID": tmp_path.name}
        own = forge.add("<!-- secateur:prune -->\nof the run before")
        forge.add("somebody's")
        done = service.step(["bash", "-c", script], tmp_path, variables)
    assert done.code == code, done.err
    assert forge.calls == ["GET", "PUT"] and len(forge.comments) == 2
    assert ("1 of 2 gates missed" if code else "2 gates kept") in forge.comments[own]
    assert all((tmp_path / path).exists() == (code == 0 or path != "pruned") for path in job["artifacts"]["paths"])
    (suite,) = JUnitXml.fromfile(str(tmp_path / job["artifacts"]["reports"]["junit"]))
    assert (suite.tests, suite.failures) == (2, int(code == 3))
