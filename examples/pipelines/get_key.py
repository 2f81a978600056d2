"""Prints a key for this run of a pipeline, so that none has to be stored.

    export SECATEUR_API_KEY=$(python get_key.py)

A rule of the team admits the repository: docs/pipelines.md, "Without a stored secret". SECATEUR_URL is the service.
On GitHub Actions the job needs `permissions: {id-token: write}`, and SECATEUR_AUDIENCE, the audience of the rule. On
GitLab it needs `id_tokens: {SECATEUR_TOKEN: {aud: …}}` with that audience. It needs nothing but Python.
"""

import json
import os
import sys
import urllib.error
import urllib.parse
import urllib.request


def identity_token() -> str:
    """Return the identity token of this run: GitLab sets it, GitHub Actions is asked for it."""
    if "SECATEUR_TOKEN" in os.environ:
        return os.environ["SECATEUR_TOKEN"]
    audience = urllib.parse.quote(os.environ["SECATEUR_AUDIENCE"])
    request = urllib.request.Request(f"{os.environ['ACTIONS_ID_TOKEN_REQUEST_URL']}&audience={audience}")
    request.add_header("Authorization", f"Bearer {os.environ['ACTIONS_ID_TOKEN_REQUEST_TOKEN']}")
    with urllib.request.urlopen(request, timeout=30) as answer:
        return str(json.load(answer)["value"])


def exchange(token: str) -> str:
    """Return the key that the service gives for a token, once."""
    request = urllib.request.Request(f"{os.environ['SECATEUR_URL'].rstrip('/')}/v1/workload-keys")
    request.add_header("Content-Type", "application/json")
    body = json.dumps({"token": token}).encode()
    with urllib.request.urlopen(request, body, timeout=30) as answer:
        return str(json.load(answer)["key"])


if __name__ == "__main__":
    try:
        print(exchange(identity_token()))
    except KeyError as missing:
        sys.exit(f"get_key.py: the variable {missing} is not set; the beginning of the file says what is needed")
    except urllib.error.HTTPError as refused:
        sys.exit(f"get_key.py: {refused.url} answered {refused.code}: {refused.read().decode(errors='replace')}")
