"""Examples of sweeps and triggers, which create jobs, and of webhooks, which announce them."""

from typing import Any, Final

from api.openapi.examples.common import CALIBRATION, COMPARISON, EVALUATION, JOB, LATER, METRICS, MOMENT
from api.openapi.examples.jobs import EXAMPLES as OF_JOBS

_SWEEP = "swp_01JNB2V6H7Q8R9S0T1V2W3X4Y5"
_SWEEP_JOB = {"model": "smollm2-135m", "calibration": CALIBRATION, "evaluation": EVALUATION}
_SWEEP_GRID = {"method": ["wanda", "sparsegpt"], "sparsity": [0.4, 0.5]}
_SWEEP_ANSWER = {
    "id": _SWEEP,
    "object": "sweep",
    "name": "how far SmolLM2 goes",
    "kind": "grid",
    "status": "succeeded",
    "error": None,
    "waiting_for": None,
    "created_at": MOMENT,
    "finished_at": LATER,
    "model": "smollm2-135m",
    "job": _SWEEP_JOB,
    "grid": _SWEEP_GRID,
    "search": None,
    "max_concurrent": 2,
    "points": {
        "total": 4,
        "waiting": 0,
        "queued": 0,
        "running": 0,
        "succeeded": 4,
        "failed": 0,
        "cancelled": 0,
        "not_run": 0,
    },
    "skipped": [],
    "dense": [{"kind": "perplexity", "name": "wikipedia-articles", "job": JOB}],
}
_POINT = {
    "number": 0,
    "stage": "full",
    "label": "wanda · 40%",
    "values": {"method": "wanda", "sparsity": 0.4},
    "job": JOB,
    "status": "succeeded",
    "error": None,
    "figures": {
        "parameters": 92_050_000,
        "bytes": 269_030_016,
        "latency_ms": 61.0,
        "perplexity": 32.1,
        "accuracy": None,
        "perplexity_ratio": 1.28,
        "bits_per_byte_ratio": 1.077,
        "accuracy_drop": None,
        "task_accuracy_drop": None,
        "latency_ratio": 1.0,
        "bytes_ratio": 1.0,
    },
    "unmet": [],
    "on_front": True,
}
_TRIGGER_ID = "trigger_01JNB2V6H7Q8R9S0T1V2W3X4Y5"
_COMMIT = "c379e821c9c95d613899e8c4343e4bfee2b0c600"
_PAYLOAD = {"commit": {"sha": _COMMIT}, "sparsity": 0.5}
_SPARSITY = {"path": "/sparsity", "type": "number", "default": 0.5, "min": 0.1, "max": 0.9}
_TRIGGER_BODY = {
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
_UNSET_PLACEHOLDER = {"required": None, "default": None, "pattern": None, "enum": None, "min": None, "max": None}
_TRIGGER = {
    "id": _TRIGGER_ID,
    "object": "trigger",
    **_TRIGGER_BODY,
    "enabled": True,
    "disabled_reason": None,
    "placeholders": {
        "commit": {**_UNSET_PLACEHOLDER, "path": "/commit/sha", "type": "string", "pattern": "[0-9a-f]{7,40}"},
        "sparsity": {**_UNSET_PLACEHOLDER, **_SPARSITY},
    },
    "schedule": None,
    "next_fire_at": None,
    "hub": {"repository": "gardeners/oak", "type": "model", "events": ["commit"]},
    "signing": False,
    "created_at": MOMENT,
    "updated_at": MOMENT,
}
_WEBHOOK = "webhook_01JNB2V6H7Q8R9S0T1V2W3X4Y5"
_WEBHOOK_ANSWER = {
    "id": _WEBHOOK,
    "object": "webhook",
    "url": "https://ci.example.com/hooks/secateur",
    "description": "the pipeline",
    "types": ["job.succeeded", "job.failed"],
    "metadata": {"branch": "main"},
    "enabled": True,
    "disabled_reason": None,
    "disabled_at": None,
    "failing_since": None,
    "pending": 0,
    "failed": 1,
    "created_at": MOMENT,
}
_DELIVERY = {
    "id": "delivery_01JNB2V6H7Q8R9S0T1V2W3X4Y5",
    "object": "webhook_delivery",
    "webhook_id": _WEBHOOK,
    "event_id": "event_01JNB2V6H7Q8R9S0T1V2W3X4Y5",
    "type": "job.succeeded",
    "subject": JOB,
    "state": "failed",
    "attempts": 10,
    "last_status": 500,
    "last_error": "answered 500",
    "next_attempt_at": None,
    "created_at": MOMENT,
    "finished_at": "2026-03-05T13:05:04Z",
}

EXAMPLES: Final[dict[str, Any]] = {
    "Comparison": COMPARISON,
    "SweepBody": {"name": "how far SmolLM2 goes", "job": _SWEEP_JOB, "grid": _SWEEP_GRID, "max_concurrent": 2},
    "Sweep": _SWEEP_ANSWER,
    "SweepResults": {
        "object": "sweep_results",
        "sweep": _SWEEP_ANSWER,
        "points": [_POINT],
        "trade_off": COMPARISON["trade_off"],
        "best": [
            {"objective": "min_perplexity", "number": 0, "label": "wanda · 40%", "job": JOB, "value": 32.1},
        ],
        "search": None,
    },
    "TriggerBody": _TRIGGER_BODY,
    "TriggerChanges": {"enabled": True, "schedule": {"cron": "0 3 * * MON", "timezone": "Europe/Berlin"}},
    "RotateTriggerBody": {"secrets": ["url"]},
    "Trigger": _TRIGGER,
    "IssuedTrigger": {
        **_TRIGGER,
        "url": "https://secateur.example.org/v1/hooks/hook_…, whole, this once",
        "signing_secret": None,
        "hub_secret": "hub_…, whole, this once",
    },
    "Firing": {
        "id": "firing_01JNB2V6H7Q8R9S0T1V2W3X4Y5",
        "object": "trigger_firing",
        "trigger_id": _TRIGGER_ID,
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
    "WebhookBody": {
        "url": "https://ci.example.com/hooks/secateur",
        "description": "the pipeline",
        "types": ["job.succeeded", "job.failed"],
        "metadata": {"branch": "main"},
    },
    "WebhookChanges": {"types": ["job.failed"], "enabled": True},
    "Webhook": _WEBHOOK_ANSWER,
    "CreatedWebhook": {**_WEBHOOK_ANSWER, "secret": "whsec_…, whole, this once"},
    "RotateSecretBody": {"grace_seconds": 86400},
    "Delivery": _DELIVERY,
    "DeliveryDetail": {
        **_DELIVERY,
        "payload": {
            "type": "job.succeeded",
            "timestamp": MOMENT,
            "data": {
                "id": JOB,
                "object": "job",
                "status": "succeeded",
                "stage": "store",
                "attempt": 1,
                "model": "smollm2-135m",
                "method": "wanda",
                "sparsity": 0.5,
                "metadata": {"branch": "main"},
                "error": None,
                "metrics": METRICS,
                "sequence": 41,
            },
        },
        "log": [
            {
                "attempt": 10,
                "started_at": "2026-03-05T13:05:04Z",
                "milliseconds": 31,
                "status": 500,
                "error": "answered 500",
                "response": "Internal Server Error",
            }
        ],
    },
    "ReplayBody": {"since": MOMENT},
    "Replayed": {"object": "replay", "deliveries": 12},
}

PARAMETERS: Final[dict[str, Any]] = {
    "sweep_id": _SWEEP,
    "trigger_id": _TRIGGER_ID,
    "token": "hook_4Yk2mQ7dV0b9w3Zr8Lx5Tc1Ns6Hj0Pg2Kf4Ma7Qe9Uo",
    "webhook-id": "msg_2KWPBgLlAfxdpx2AI54pPJ85f4W",
    "webhook-timestamp": "1772443800",
    "webhook-signature": "v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4=",
    "x-webhook-secret": "hub_4Yk2mQ7dV0b9w3Zr8Lx5Tc1Ns6Hj0Pg2Kf4Ma7Qe9Uo",
    "webhook_id": _WEBHOOK,
    "delivery_id": _DELIVERY["id"],
    "state": "failed",
    "type": "job.succeeded",
}
