"""Says on a pull request how a pruning job ended: one comment, written the first time and changed from then on.

    python comment.py summary.md

The pull request is the open one of the run's branch; where there is none, nothing is said. On GitHub it needs
GITHUB_TOKEN and what Actions sets: GITHUB_API_URL, GITHUB_REPOSITORY, GITHUB_REF_NAME. On GitLab it needs GITLAB_TOKEN
and what a branch's pipeline sets: CI_API_V4_URL, CI_PROJECT_ID, CI_COMMIT_BRANCH. COMMENT_NAME tells several comments
of one pull request apart.

Its own comment is the one that holds a mark of that name, which nobody sees. Nothing but Python is needed.
"""

import json
import os
import re
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

MARK = f"<!-- secateur:{os.environ.get('COMMENT_NAME', 'prune')} -->"


def call(method: str, address: str, headers: Mapping[str, str], body: dict[str, str] | None = None) -> tuple[Any, str]:
    """Call a forge's API; returns its answer and the address of the next page, empty on the last."""
    data = None if body is None else json.dumps(body).encode()
    given = {"Accept": "application/json", "User-Agent": "secateur-comment", **headers}
    if data is not None:
        given["Content-Type"] = "application/json"
    request = urllib.request.Request(address, data=data, headers=given, method=method)
    with urllib.request.urlopen(request, timeout=30) as answer:
        following = re.search(r'<([^>]+)>;\s*rel="next"', answer.headers.get("Link") or "")
        return json.load(answer), following[1] if following else ""


def comments(address: str, headers: Mapping[str, str]) -> Iterator[dict[str, Any]]:
    """Yield all comments, page by page."""
    following = f"{address}?per_page=100"
    while following:
        found, following = call("GET", following, headers)
        yield from found


def main() -> None:
    text = f"{MARK}\n{Path(sys.argv[1]).read_text('utf-8')}"
    known = os.environ
    if "GITLAB_TOKEN" in known:
        change, headers = "PUT", {"PRIVATE-TOKEN": known["GITLAB_TOKEN"]}
        project = f"{known['CI_API_V4_URL']}/projects/{known['CI_PROJECT_ID']}"
        branch = urllib.parse.urlencode({"state": "opened", "source_branch": known["CI_COMMIT_BRANCH"]})
        found, _ = call("GET", f"{project}/merge_requests?{branch}", headers)
        own = (each for each in found if str(each["source_project_id"]) == known["CI_PROJECT_ID"])  # not a fork's
        request = next((each["iid"] for each in own), None)
        listed = changed = f"{project}/merge_requests/{request}/notes"
    else:
        change, headers = "PATCH", {"Authorization": f"Bearer {known['GITHUB_TOKEN']}"}
        headers["X-GitHub-Api-Version"] = "2022-11-28"
        repository = f"{known['GITHUB_API_URL']}/repos/{known['GITHUB_REPOSITORY']}"
        head = f"{known['GITHUB_REPOSITORY'].partition('/')[0]}:{known['GITHUB_REF_NAME']}"
        found, _ = call("GET", f"{repository}/pulls?{urllib.parse.urlencode({'state': 'open', 'head': head})}", headers)
        request = next((each["number"] for each in found), None)
        listed, changed = f"{repository}/issues/{request}/comments", f"{repository}/issues/comments"
    if request is None:
        print("comment.py: this branch has no open pull request", file=sys.stderr)
        return
    written = next((each["id"] for each in comments(listed, headers) if MARK in (each["body"] or "")), None)
    if written is None:
        call("POST", listed, headers, {"body": text})
    else:
        call(change, f"{changed}/{written}", headers, {"body": text})


if __name__ == "__main__":
    main()
