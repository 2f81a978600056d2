"""A hub on loopback: enough of the hub's API for its own clients, and misbehaviour on demand.

Large files are redirected to another host name, as the hub does to its content network.
"""

import hashlib
import json
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.sources.hub_files import LARGE_BYTES, Repository, file_entry, git_blob, repository_info

TOKEN = "hf_a_token_for_tests"
_CHUNK_BYTES = 4096


@dataclass
class HubState:
    """What tests set and look at. `served` counts bytes of content by path; `drops` are byte counts after which the
    next connections for a path are cut; `bytes_per_second` slows content down; `down` answers 503 to everything.
    `tokens` are those it accepts, each with the repositories its account may read (null: all); `tokens_seen` counts
    requests by token.
    """

    tokens: dict[str, set[str] | None] = field(default_factory=lambda: {TOKEN: None})

    repositories: dict[tuple[str, str], Repository] = field(default_factory=dict)
    tokens_seen: Counter[str | None] = field(default_factory=Counter)
    served: Counter[str] = field(default_factory=Counter)
    requests: list[str] = field(default_factory=list)
    drops: dict[str, list[int]] = field(default_factory=dict)
    damaged: set[str] = field(default_factory=set)
    bytes_per_second: float | None = None
    before_answer: Callable[[], None] = lambda: None
    """Called while whoever asks waits."""
    answering: list[str] = field(default_factory=list)
    """Of each answer that is under way, the path."""
    down: bool = False
    describe: Callable[[dict[str, Any]], Any] = lambda info: info
    """Gives what is answered for a repository, in place of what describes it."""
    found: bytes | None = None
    """Answer to any search, in place of what is found."""
    token_seen_elsewhere: bool = False
    endpoint: str = ""

    def add(self, kind: str, name: str, **properties: Any) -> Repository:
        repository = Repository(kind, name, **properties)
        self.repositories[kind, name] = repository
        return repository


class Refusal(Exception):
    def __init__(self, status: int, code: str | None, message: str = "") -> None:
        self.status, self.code, self.message = status, code, message


class Handler(BaseHTTPRequestHandler):
    """Answers by the state that the server had when the request came: what is left of an earlier test counts there."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else each answer's body waits 40 ms for its head to be acknowledged
    state: HubState

    def do_GET(self) -> None:
        self._answer()

    def do_HEAD(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self._answer()

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def _answer(self) -> None:
        self.state = type(self).state
        length = int(self.headers.get("Content-Length") or 0)
        self._body = self.rfile.read(length)
        url = urlsplit(self.path)
        self._query = parse_qs(url.query)
        path = unquote(url.path)
        self.state.requests.append(f"{self.command} {path}")
        given = self.headers.get("Authorization")
        self.state.tokens_seen[given and given.removeprefix("Bearer ")] += 1
        self.state.before_answer()
        self.state.answering.append(path)
        try:
            if self.state.down:
                raise Refusal(503, None)
            self._route(path)
        except Refusal as refusal:
            headers = {"X-Error-Message": refusal.message}
            if refusal.code:
                headers["X-Error-Code"] = refusal.code
            self._send(refusal.status, b"", headers)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        finally:
            self.state.answering.remove(path)

    def _route(self, path: str) -> None:
        if match := re.fullmatch(r"/content/([0-9a-f]{64})/(.+)", path):
            self._content(match[1], match[2])
        elif path == "/api/models":
            self._search()
        elif match := re.fullmatch(r"/api/(model|dataset)s/([^/]+/[^/]+)(?:/(.+))?", path):
            self._api(match[1], match[2], match[3] or "")
        elif match := re.fullmatch(r"/(?:(dataset)s/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            self._resolve(match[1] or "model", match[2], match[3], match[4])
        else:
            raise Refusal(404, None)

    def _repository(self, kind: str, name: str, *, content: bool) -> Repository:
        given = self.headers.get("Authorization")
        if not self._is_known(given):
            raise Refusal(401, None, "Invalid credentials in Authorization header")
        repository = self.state.repositories.get((kind, name))
        if repository is None or (repository.private and not self._may_read(given, name)):
            raise Refusal(404 if given else 401, "RepoNotFound")
        if repository.gated and content and not self._may_read(given, name):
            raise Refusal(403, "GatedRepo")
        return repository

    def _is_known(self, authorization: str | None) -> bool:
        return authorization is None or authorization.removeprefix("Bearer ") in self.state.tokens

    def _may_read(self, authorization: str | None, name: str) -> bool:
        readable = self.state.tokens.get(authorization.removeprefix("Bearer "), set()) if authorization else set()
        return readable is None or name in readable

    def _commit(self, repository: Repository, revision: str) -> str:
        commit = repository.branches.get(revision, revision)
        if commit not in repository.commits:
            raise Refusal(404, "RevisionNotFound")
        return commit

    def _api(self, kind: str, name: str, rest: str) -> None:
        if rest == "auth-check":
            self._repository(kind, name, content=True)
            self._json({})
            return
        repository = self._repository(kind, name, content=False)
        what, _, revision = rest.partition("/")
        if what in ("", "revision"):
            commit = self._commit(repository, unquote(revision) or "main")
            self._json(self.state.describe(repository_info(repository, commit)))
        elif what == "tree":
            revision, _, folder = revision.partition("/")
            files = repository.commits[self._commit(repository, revision)]
            self._json(_tree(files, folder, recursive=self._query.get("recursive", ["false"])[0].lower() == "true"))
        elif what == "paths-info":
            files = repository.commits[self._commit(repository, revision)]
            asked = parse_qs(self._body.decode()).get("paths", [])
            if self.headers.get("Content-Type") == "application/json":
                asked = json.loads(self._body)["paths"]
            folders = [path for path in asked if any(each.startswith(f"{path}/") for each in files)]
            found = [file_entry(path, files[path]) for path in asked if path in files]
            self._json(found + [{"type": "directory", "path": path, "oid": "0" * 40} for path in folders])
        else:
            raise Refusal(404, None)

    def _search(self) -> None:
        if self.state.found is not None:
            self._send(200, self.state.found, {"Content-Type": "application/json"})
            return
        words, most = self._query["search"][0].split(), int(self._query["limit"][0])
        found: list[dict[str, Any]] = [
            {"id": name, "downloads": 1000 * place, "gated": "manual" if each.gated else False, "tags": []}
            for place, ((kind, name), each) in enumerate(self.state.repositories.items())
            if kind == "model" and not each.private and all(word in name.casefold() for word in words)
        ]
        self._json(sorted(found, key=lambda each: -int(str(each["downloads"])))[:most])

    def _resolve(self, kind: str, name: str, revision: str, path: str) -> None:
        repository = self._repository(kind, name, content=True)
        commit = self._commit(repository, revision)
        data = repository.commits[commit].get(path)
        if data is None:
            raise Refusal(404, "EntryNotFound")
        headers = {"X-Repo-Commit": commit, "Accept-Ranges": "bytes"}
        if len(data) >= LARGE_BYTES:
            sha256 = hashlib.sha256(data).hexdigest()
            elsewhere = self.state.endpoint.replace("127.0.0.1", "localhost")
            headers |= {"X-Linked-Etag": f'"{sha256}"', "X-Linked-Size": str(len(data))}
            self._send(302, b"", headers | {"Location": f"{elsewhere}/content/{sha256}/{path}"})
        else:
            self._bytes(path, data, headers | {"ETag": f'"{git_blob(data)}"'})

    def _content(self, sha256: str, path: str) -> None:
        if "Authorization" in self.headers:
            self.state.token_seen_elsewhere = True
        for repository in self.state.repositories.values():
            for files in repository.commits.values():
                data = files.get(path)
                if data is not None and hashlib.sha256(data).hexdigest() == sha256:
                    self._bytes(path, data, {"ETag": f'"{sha256}"', "Accept-Ranges": "bytes"})
                    return
        raise Refusal(404, None)

    def _bytes(self, path: str, data: bytes, headers: dict[str, str]) -> None:
        if path in self.state.damaged:
            data = bytes(len(data))
        status, start, end = 200, 0, len(data)
        if match := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            status, start = 206, int(match[1])
            end = min(int(match[2]) + 1, len(data)) if match[2] else len(data)
            headers = headers | {"Content-Range": f"bytes {start}-{end - 1}/{len(data)}"}
        self._send(status, None, headers | {"Content-Length": str(end - start)})
        if self.command == "HEAD":
            return
        drops = self.state.drops.get(path)
        stop = min(end, start + drops.pop(0)) if drops else end
        for place in range(start, stop, _CHUNK_BYTES):
            chunk = data[place : min(place + _CHUNK_BYTES, stop)]
            self.wfile.write(chunk)
            self.state.served[path] += len(chunk)
            if self.state.bytes_per_second:
                time.sleep(len(chunk) / self.state.bytes_per_second)
        if stop < end:
            self.close_connection = True

    def _json(self, value: Any) -> None:
        self._send(200, json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _send(self, status: int, body: bytes | None, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if body is not None:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if body and self.command != "HEAD":
            self.wfile.write(body)


def _tree(files: dict[str, bytes], folder: str, *, recursive: bool) -> list[dict[str, Any]]:
    prefix = f"{folder}/" if folder else ""
    inside = {path.removeprefix(prefix): data for path, data in files.items() if path.startswith(prefix)}
    if folder and not inside:
        raise Refusal(404, "EntryNotFound")
    entries = [file_entry(prefix + path, data) for path, data in inside.items() if recursive or "/" not in path]
    folders = {prefix + path.rpartition("/")[0] for path in inside if "/" in path}
    if not recursive:
        folders = {prefix + path.partition("/")[0] for path in inside if "/" in path}
    return entries + [{"type": "directory", "path": path, "oid": "0" * 40, "size": 0} for path in sorted(folders)]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    """Connections that are accepted while the process stands still."""


@contextmanager
def hub_server(kind: type[Handler] = Handler, state: HubState | None = None, port: int = 0) -> Iterator[HubState]:
    """A running hub without repositories, or one of another kind with its state."""
    with lasting_hub_server(kind, port) as renew:
        yield renew(state or HubState())


@contextmanager
def lasting_hub_server(kind: type[Handler] = Handler, port: int = 0) -> Iterator[Callable[[HubState], HubState]]:
    """A running hub, and what gives it a state, as often as there is a new test."""
    handler: type[Handler] = type("Handler", (kind,), {})
    server = _Server(("127.0.0.1", port), handler)

    def renew(state: HubState) -> HubState:
        state.endpoint = f"http://127.0.0.1:{server.server_port}"
        handler.state = state
        return state

    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield renew
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=60)
