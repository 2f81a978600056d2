"""Triggers and their firings."""

from typing import Any, Final

from api.openapi.examples.common import MOMENT
from api.openapi.examples.jobs import EXAMPLES as OF_JOBS

_ID = "trigger_01JNB2V6H7Q8R9S0T1V2W3X4Y5"
_COMMIT = "c379e821c9c95d613899e8c4343e4bfee2b0c600"
_PAYLOAD = {"commit": {"sha": _COMMIT}, "sparsity": 0.5}
_SPARSITY = {"path": "/sparsity", "type": "number", "default": 0.5, "min": 0.1, "max": 0.9}
_BODY = {
    "name": "every-commit",
    "description": "Prunes what the training pipeline has just published.",
    "template": {
        "model": "smollm2-135m",
        "method": "magnitude",
        "sparsity": {"$payload": "sparsity"},
        "metadata": {"commit": "${commit}"},
    },
    "placeholders": {"commit": {"path": "/commit/sha", "pattern": "[0-9a-f]{7,40}"}, "sparsity": _SPARSITY},
    "event_id": "/commit/sha",
}
_UNSET = {"required": None, "default": None, "pattern": None, "enum": None, "min": None, "max": None}
_TRIGGER = {
    "id": _ID,
    "object": "trigger",
    **_BODY,
    "enabled": True,
    "disabled_reason": None,
    "placeholders": {
        "commit": {**_UNSET, "path": "/commit/sha", "type": "string", "pattern": "[0-9a-f]{7,40}"},
        "sparsity": {**_UNSET, **_SPARSITY},
    },
    "schedule": None,
    "next_fire_at": None,
    "hub": {"repository": "gardeners/oak", "type": "model", "events": ["commit"]},
    "signing": False,
    "created_at": MOMENT,
    "updated_at": MOMENT,
}

EXAMPLES: Final[dict[str, Any]] = {
    "TriggerBody": _BODY,
    "TriggerChanges": {"enabled": True, "schedule": {"cron": "0 3 * * MON", "timezone": "Europe/Berlin"}},
    "RotateTriggerBody": {"secrets": ["url"]},
    "Trigger": _TRIGGER,
    "IssuedTrigger": {
        **_TRIGGER,
        "url": "https://secateur.example.org/v1/hooks/hook_…, whole, this once",
        "signing_secret": None,
        "hub_secret": "hub_…, whole, this once",
    },
    "TriggerVersion": {
        "object": "trigger_version",
        "trigger_id": _ID,
        "number": 2,
        "actor": "key:key_01JNB2V6H7Q8R9S0T1V2W3X4Y5",
        "definition": {"name": "every-release", "template": _TRIGGER["template"]},
        "changes": [{"field": "template.sparsity", "before": 0.4, "after": {"$payload": "sparsity"}}],
        "created_at": MOMENT,
    },
    "Firing": {
        "id": "firing_01JNB2V6H7Q8R9S0T1V2W3X4Y5",
        "object": "trigger_firing",
        "trigger_id": _ID,
        "source": "url",
        "outcome": "accepted",
        "event_id": _COMMIT,
        "job_id": "job_01JNB2V6H7Q8R9S0T1V2W3X4Y5",
        "error": None,
        "note": None,
        "payload": _PAYLOAD,
        "payload_bytes": 78,
        "actor": None,
        "address": "192.0.2.17",
        "request_id": "req_01JNB2V6H7Q8R9S0T1V2W3X4Y5",
        "created_at": MOMENT,
    },
    "TriggerPreview": {
        "object": "trigger_preview",
        "event_id": _COMMIT,
        "job": OF_JOBS["Inspection"]["job"],
        "estimate": OF_JOBS["Inspection"]["estimate"],
    },
    "fire_trigger body": _PAYLOAD,
    "fire_hook body": _PAYLOAD,
    "preview_trigger body": _PAYLOAD,
}

PARAMETERS: Final[dict[str, Any]] = {
    "trigger_id": _ID,
    "token": "hook_4Yk2mQ7dV0b9w3Zr8Lx5Tc1Ns6Hj0Pg2Kf4Ma7Qe9Uo",
    "webhook-id": "msg_2KWPBgLlAfxdpx2AI54pPJ85f4W",
    "webhook-timestamp": "1772443800",
    "webhook-signature": "v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4=",
    "x-webhook-secret": "hub_4Yk2mQ7dV0b9w3Zr8Lx5Tc1Ns6Hj0Pg2Kf4Ma7Qe9Uo",
}
