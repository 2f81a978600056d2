"""Stand-ins for GitHub and GitLab on loopback, as far as comments on pull requests go, written from what they document:
docs.github.com/rest/issues/comments and /rest/pulls, docs.gitlab.com/api/notes and /api/merge_requests.
"""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit

TOKEN = "the-run-s-own"
_BRANCH = "leaf"
_PULLS = {
    "github": (r"/repos/acme/oak/issues/7/comments", r"/repos/acme/oak/issues/comments/(\d+)", "PATCH"),
    "gitlab": (r"/projects/41/merge_requests/7/notes", r"/projects/41/merge_requests/7/notes/(\d+)", "PUT"),
}
"""Addresses of each forge: the list of a pull request's comments, one of them, and the method that changes it."""


@dataclass
class Forge:
    """One of the two, with the comments of pull request 7 of its one project, by id in the order they came."""

    kind: Literal["github", "gitlab"]
    address: str = ""
    comments: dict[int, str] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    open: bool = True
    """Whether the branch `leaf` has pull request 7; a fork's branch of that name always has number 6."""

    @property
    def variables(self) -> dict[str, str]:
        """Return the environment of a run for the branch."""
        if self.kind == "github":
            repository = {"GITHUB_API_URL": self.address, "GITHUB_REPOSITORY": "acme/oak"}
            return {**repository, "GITHUB_REF_NAME": _BRANCH}
        own = {"CI_API_V4_URL": self.address, "CI_PROJECT_ID": "41", "CI_COMMIT_BRANCH": _BRANCH}
        return {**own, "GITLAB_TOKEN": TOKEN}

    def add(self, body: str) -> int:
        """A comment; newer ones have higher ids."""
        number = 1000 + len(self.comments)
        self.comments[number] = body
        return number

    def answer(self, method: str, target: str, token: str, body: Any) -> tuple[int, Any]:
        """Status and document of the answer to a call."""
        address = urlsplit(target)
        if token != TOKEN:
            return 401, {"message": "Bad credentials" if self.kind == "github" else "401 Unauthorized"}
        if address.path in ("/repos/acme/oak/pulls", "/projects/41/merge_requests"):
            return 200, self._requests(parse_qs(address.query))
        self.calls.append(method)
        listed, one, change = _PULLS[self.kind]
        if re.fullmatch(listed, address.path):
            if method == "GET":
                return 200, self._listed()
            if method == "POST" and body.get("body"):
                return 201, self._shown(self.add(body["body"]))
            return 422 if self.kind == "github" else 400, {"message": "body is missing"}
        found = re.fullmatch(one, address.path)
        if found is None or int(found[1]) not in self.comments:
            return 404, {"message": "Not Found"}
        if method != change:
            return 404 if self.kind == "github" else 405, {"message": "Method Not Allowed"}
        self.comments[int(found[1])] = body["body"]
        return 200, self._shown(int(found[1]))

    def _requests(self, query: dict[str, list[str]]) -> list[dict[str, Any]]:
        """GitHub's filter names the owner of the branch, GitLab's does not."""
        if self.kind == "github":
            assert query == {"state": ["open"], "head": [f"acme:{_BRANCH}"]}
            return [{"number": 7}] if self.open else []
        assert query == {"state": ["opened"], "source_branch": [_BRANCH]}
        forks = {"iid": 6, "source_project_id": 913}
        return [forks, {"iid": 7, "source_project_id": 41}] if self.open else [forks]

    def _listed(self) -> list[dict[str, Any]]:
        """GitHub lists by ascending id, GitLab the newest first."""
        return [self._shown(each) for each in sorted(self.comments, reverse=self.kind == "gitlab")]

    def _shown(self, number: int) -> dict[str, Any]:
        return {"id": number, "body": self.comments[number]}


@contextmanager
def serving_forge(kind: Literal["github", "gitlab"]) -> Iterator[Forge]:
    forge = Forge(kind)

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            sent = self.rfile.read(length)
            body = json.loads(sent) if sent and self.headers["Content-Type"] == "application/json" else {}
            token = self.headers.get("Private-Token") or ""
            if kind == "github":
                token = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
            status, document = forge.answer(self.command, self.path, token, body)
            content = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_PATCH = _answer

        def log_message(self, format: str, *args: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    forge.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield forge
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
