"""Examples of publications, retention, and the team's hub token."""

from typing import Any, Final

from api.openapi.examples.common import JOB, LATER, MOMENT, OTHER_JOB

_POLICY = {
    "keep_days": 30,
    "keep_tagged": {"metadata": {"keep": "true"}},
}

EXAMPLES: Final[dict[str, Any]] = {
    "WayToRun": {
        "object": "way_to_run",
        "runtime": "transformers",
        "about": "Continues a text with the likeliest words",
        "packages": ["transformers", "torch"],
        "commands": "python - <<'END'\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n…\nEND",
    },
    "Identifier": {"id": JOB, "object": "identifier", "kind": "job", "created_at": MOMENT},
    "PublicationBody": {
        "to": "hub:acme/smollm2-135m-wanda",
        "token": "hf_…, that may write there",
        "revision": "main",
        "private": True,
        "message": "Wanda, 50 %",
    },
    "Publication": {
        "id": "pub_01JNB2V6H7Q8R9S0T1V2W3X4Y5",
        "object": "publication",
        "job_id": JOB,
        "to": "hub:acme/smollm2-135m-wanda",
        "revision": "main",
        "private": True,
        "message": "Wanda, 50 %",
        "region": None,
        "endpoint": None,
        "status": "succeeded",
        "attempt": 1,
        "progress": {"files": 9, "files_total": 9, "bytes": 271_590_112, "bytes_total": 271_590_112},
        "result": {
            "url": "https://huggingface.co/acme/smollm2-135m-wanda/commit/7d0f5a3c1b9e8f7a6d5c4b3a2f1e0d9c8b7a6f5e",
            "commit": "7d0f5a3c1b9e8f7a6d5c4b3a2f1e0d9c8b7a6f5e",
        },
        "error": None,
        "created_at": MOMENT,
        "started_at": MOMENT,
        "finished_at": LATER,
        "expires_at": "2026-03-03T09:30:00Z",
    },
    "HubTokenBody": {"token": "hf_…, that may read what the team prunes"},
    "HubToken": {"object": "hub_token", "used": "team", "updated_at": MOMENT},
    "RetentionPolicy": _POLICY,
    "Retention": {"object": "retention", "policy": _POLICY, "suspended": None, "updated_at": MOMENT},
    "RetentionPreview": {
        "object": "retention_preview",
        "policy": _POLICY,
        "artifacts": [
            {
                "job_id": JOB,
                "model": "smollm2-135m",
                "method": "wanda",
                "finished_at": "2026-01-12T08:00:00Z",
                "files": 9,
                "bytes": 271_590_112,
                "goes": True,
                "kept_because": [],
                "used_by": None,
            },
            {
                "job_id": OTHER_JOB,
                "model": "smollm2-135m",
                "method": "sparsegpt",
                "finished_at": "2026-01-13T08:00:00Z",
                "files": 9,
                "bytes": 271_590_112,
                "goes": False,
                "kept_because": ["tagged"],
                "used_by": None,
            },
        ],
        "has_more": False,
        "goes": 1,
        "stays": 1,
        "bytes_freed": 271_590_112,
    },
    "SigningKeys": {
        "keys": [
            {
                "keyid": "872bab069d7701740defe8471c55f190d5331435611c6efbd16d375b16119ecb",
                "scheme": "ed25519",
                "pem": "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA…\n-----END PUBLIC KEY-----\n",
            }
        ]
    },
}

PARAMETERS: Final[dict[str, Any]] = {
    "publication_id": "pub_01JNB2V6H7Q8R9S0T1V2W3X4Y5",
    "list_uploads kind": "model",
    "list_uploads status": "open",
    "send_part path": "articles.jsonl",
    "offset": 524_288,
    "list_identifiers kind": "job",
    "list_identifiers shortened": "job_01jnb",
}
