"""Webhooks and their deliveries."""

from typing import Any, Final

from api.openapi.examples.common import JOB, METRICS, MOMENT

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
    "webhook_id": _WEBHOOK,
    "delivery_id": _DELIVERY["id"],
    "state": "failed",
    "type": "job.succeeded",
}
