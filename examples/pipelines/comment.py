"""Says on a pull request how a pruning job ended: one comment, written the first time and changed from then on.

    python comment.py summary.md

On GitHub it needs GITHUB_TOKEN, PULL_REQUEST (its number) and what Actions sets: GITHUB_API_URL, GITHUB_REPOSITORY. On
GitLab it needs GITLAB_TOKEN and what a merge request's pipeline sets: CI_API_V4_URL, CI_PROJECT_ID,
CI_MERGE_REQUEST_IID. COMMENT_NAME tells several comments of one pull request apart.

Its own comment is the one that holds a mark of that name, which nobody sees. Nothing but Python is needed.
"""

import json
import os
import re
import sys
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
        project = f"{known['CI_API_V4_URL']}/projects/{known['CI_PROJECT_ID']}"
        listed = f"{project}/merge_requests/{known['CI_MERGE_REQUEST_IID']}/notes"
        changed, change, headers = listed, "PUT", {"PRIVATE-TOKEN": known["GITLAB_TOKEN"]}
    else:
        issues = f"{known['GITHUB_API_URL']}/repos/{known['GITHUB_REPOSITORY']}/issues"
        listed, changed, change = f"{issues}/{known['PULL_REQUEST']}/comments", f"{issues}/comments", "PATCH"
        headers = {"Authorization": f"Bearer {known['GITHUB_TOKEN']}", "X-GitHub-Api-Version": "2022-11-28"}
    own = next((each["id"] for each in comments(listed, headers) if MARK in (each["body"] or "")), None)
    if own is None:
        call("POST", listed, headers, {"body": text})
    else:
        call(change, f"{changed}/{own}", headers, {"body": text})


if __name__ == "__main__":
    main()
