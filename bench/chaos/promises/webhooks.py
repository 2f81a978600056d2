"""Webhooks: what the receiver was sent, against what happened."""

import base64
import hashlib
import hmac
import json
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

from bench.chaos.observation import Observation, SeenJob
from bench.chaos.promises.promise import Broken, promise


@promise("webhooks", "settling")
def every_event_is_delivered(seen: Observation) -> Iterator[Broken]:
    """An endpoint is told of every event it asked for at least once, always under one id, which is of nothing else."""
    for endpoint in seen.noted("endpoint"):
        ids: dict[tuple[str, int], set[str]] = defaultdict(set)
        events: dict[str, set[tuple[str, int]]] = defaultdict(set)
        for line in seen.received():
            data = json.loads(line["body"])["data"]
            if line["path"] == endpoint["path"] and "sequence" in data:
                ids[data["id"], data["sequence"]].add(line["id"])
                events[line["id"]].add((data["id"], data["sequence"]))
        for found in seen.jobs.values():
            for event in _wanted(endpoint, found):
                told = ids.get((found.id, event["sequence"]), set())
                what = f"event {event['sequence']} ({event['data']['status']}) for {endpoint['path']}"
                if not told:
                    yield f"{what} never came", found.id
                if len(told) > 1:
                    yield f"{what} came under {len(told)} ids: {sorted(told)}", found.id
        for name, of in events.items():
            if len(of) > 1:
                yield f"{name} at {endpoint['path']} is the id of {sorted(of)}", None


@promise("webhooks", "settling")
def deliveries_are_signed(seen: Observation) -> Iterator[Broken]:
    """Whatever an endpoint is sent is signed with its secret, as Standard Webhooks has it."""
    secrets = {endpoint["path"]: endpoint["secret"] for endpoint in seen.noted("endpoint")}
    for line in seen.received():
        secret = secrets.get(line["path"])
        if secret is None:
            yield f"{line['id']} came to {line['path']}, which is no endpoint's", None
        elif _signature(secret, line) not in (line["headers"]["webhook-signature"] or "").split():
            yield f"{line['id']} at {line['path']} is not signed with the endpoint's secret", None


def _wanted(endpoint: dict[str, Any], found: SeenJob) -> list[dict[str, Any]]:
    if found.team != endpoint["team"] or not endpoint["metadata"].items() <= found.job["metadata"].items():
        return []
    types = endpoint["types"]
    return [event for event in found.statuses if not types or f"job.{event['data']['status']}" in types]


def _signature(secret: str, line: dict[str, Any]) -> str:
    key = base64.b64decode(secret.removeprefix("whsec_"))
    signed = f"{line['headers']['webhook-id']}.{line['headers']['webhook-timestamp']}.{line['body']}"
    return "v1," + base64.b64encode(hmac.digest(key, signed.encode(), hashlib.sha256)).decode()
