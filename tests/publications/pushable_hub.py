"""The hub on loopback, and what its own client needs to push there: repositories are made, large files announced and
sent to another host name (as to the hub's content network), the rest sent with the commit.
"""

import base64
import hashlib
import json
import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.sources.hub_files import LARGE_BYTES
from tests.sources.hub_server import TOKEN, Handler, HubState, Refusal, hub_server


@dataclass
class PushedHub(HubState):
    """`writers` may write to the namespace of each token; `sent` counts the bodies of large files by SHA-256;
    `authorizations` are all that were seen. With `hold_after` set, that many large files are taken; the next one is
    held until `release`, then lost.
    """

    writers: dict[str, str] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    sent: Counter[str] = field(default_factory=Counter)
    authorizations: set[str | None] = field(default_factory=set)
    messages: list[str] = field(default_factory=list)
    commits_made: int = 0
    refuse_commit: int | None = None
    hold_after: int | None = None
    is_holding: threading.Event = field(default_factory=threading.Event)
    release: threading.Event = field(default_factory=threading.Event)
    on_large_file: Callable[[str], None] = lambda oid: None

    def files(self, name: str, branch: str = "main") -> dict[str, bytes]:
        repository = self.repositories["model", name]
        return repository.commits[repository.branches[branch]]


class PushHandler(Handler):
    state: PushedHub

    def do_PUT(self) -> None:
        self._answer()

    def _is_known(self, authorization: str | None) -> bool:
        return super()._is_known(authorization) or self._namespace(authorization) is not None

    def _may_read(self, authorization: str | None, name: str) -> bool:
        return super()._may_read(authorization, name) or self._namespace(authorization) == name.split("/")[0]

    def _namespace(self, authorization: str | None) -> str | None:
        return self.state.writers.get((authorization or "").removeprefix("Bearer "))

    def _route(self, path: str) -> None:
        given = self.headers.get("Authorization")
        if path.startswith("/lfs/"):
            if given is not None:
                self.state.token_seen_elsewhere = True
            self._large_file(path)
            return
        self.state.authorizations.add(given)
        if path == "/api/repos/create":
            self._create()
        elif path == "/api/validate-yaml":
            self._json({"warnings": [], "errors": []})
        elif match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/(branch|preupload|commit)/(.+)", path):
            name, what, revision = match.groups()
            self._require_writer(name)
            {"branch": self._branch, "preupload": self._preupload, "commit": self._take_commit}[what](name, revision)
        elif match := re.fullmatch(r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", path):
            self._require_writer(match[1])
            self._batch()
        else:
            super()._route(path)

    def _require_writer(self, name: str) -> None:
        self._repository("model", name, content=False)
        if self._namespace(self.headers.get("Authorization")) != name.split("/")[0]:
            raise Refusal(403, None, "Forbidden")

    def _create(self) -> None:
        given = self.headers.get("Authorization")
        if not self._is_known(given) or given is None:
            raise Refusal(401, None, "Invalid credentials in Authorization header")
        asked = json.loads(self._body)
        name = f"{asked['organization']}/{asked['name']}"
        if self._namespace(given) != asked["organization"]:
            raise Refusal(403, None, "You don't have the rights to create a model under this namespace")
        is_new = ("model", name) not in self.state.repositories
        if is_new:
            repository = self.state.add("model", name, private=asked.get("visibility") == "private")
            repository.commit({".gitattributes": b"*.safetensors filter=lfs\n"})
        body = json.dumps({"url": f"{self.state.endpoint}/{name}", "name": name}).encode()
        self._send(200 if is_new else 409, body, {"Content-Type": "application/json"})

    def _branch(self, name: str, branch: str) -> None:
        repository = self.state.repositories["model", name]
        is_new = branch not in repository.branches
        if is_new:
            repository.branches[branch] = repository.branches["main"]
        self._send(200 if is_new else 409, b"{}", {"Content-Type": "application/json"})

    def _preupload(self, name: str, revision: str) -> None:
        repository = self.state.repositories["model", name]
        there = repository.commits[self._commit(repository, revision)]
        self._json(
            {
                "files": [
                    {
                        "path": file["path"],
                        "uploadMode": "lfs" if file["size"] >= LARGE_BYTES else "regular",
                        "shouldIgnore": False,
                        "oid": _oid(there.get(file["path"])),
                    }
                    for file in json.loads(self._body)["files"]
                ]
            }
        )

    def _batch(self) -> None:
        elsewhere = self.state.endpoint.replace("127.0.0.1", "localhost")
        answers = []
        for each in json.loads(self._body)["objects"]:
            oid, size = each["oid"], each["size"]
            answer: dict[str, Any] = {"oid": oid, "size": size}
            if oid not in self.state.objects:
                answer["actions"] = {"upload": {"href": f"{elsewhere}/lfs/{oid}"}}
            answers.append(answer)
        self._json({"transfer": "basic", "objects": answers})

    def _large_file(self, path: str) -> None:
        oid = path.removeprefix("/lfs/")
        if len(self._body) != int(self.headers.get("Content-Length") or 0):  # the sender is gone
            self.close_connection = True
            return
        if self.state.hold_after is not None and len(self.state.objects) >= self.state.hold_after:
            self.state.is_holding.set()
            self.state.release.wait(60)
            raise Refusal(503, None)
        self.state.on_large_file(oid)
        if hashlib.sha256(self._body).hexdigest() != oid:
            raise Refusal(400, None, "not what was announced")
        self.state.sent[oid] += 1
        self.state.objects[oid] = self._body
        self._send(200, b"", {})

    def _take_commit(self, name: str, revision: str) -> None:
        if self.state.refuse_commit is not None:
            raise Refusal(self.state.refuse_commit, None, "Not now")
        repository = self.state.repositories["model", name]
        lines = [json.loads(line) for line in self._body.splitlines()]
        header = next(line["value"] for line in lines if line["key"] == "header")
        before = self._commit(repository, revision)
        if header.get("parentCommit") not in (None, before):
            raise Refusal(412, None, "A commit has happened since. Please refresh and try again.")
        files = dict(repository.commits[before])
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.state.objects[value["oid"]]
        commit = repository.commit(files, revision)
        self.state.commits_made += 1
        self.state.messages.append(header["summary"])
        url = f"{self.state.endpoint}/{name}/commit/{commit}"
        self._json({"commitUrl": url, "commitOid": commit, "success": True})


def _oid(data: bytes | None) -> str | None:
    if data is None:
        return None
    if len(data) >= LARGE_BYTES:
        return hashlib.sha256(data).hexdigest()
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@contextmanager
def pushable_hub() -> Iterator[PushedHub]:
    """A running hub without repositories; nobody may write to it yet, and the server's own token may only read."""
    state = PushedHub()
    assert TOKEN not in state.writers
    with hub_server(PushHandler, state):
        try:
            yield state
        finally:
            state.release.set()
