"""Translation of the hub client's errors into errors of this service."""

import errno
import json
from collections.abc import Iterator
from contextlib import contextmanager

import structlog

from core.service.sources.hub_names import Kind
from secateur_wire.errors import (
    GatedModel,
    HubUnavailable,
    SecateurError,
    UnknownDataset,
    UnknownModel,
    UnusableDataset,
    UnusableModel,
)
from secateur_wire.teams import TokenOwner

log = structlog.get_logger()

_NO_NETWORK_SECONDS = 600
"""Retry-After where nothing connects: longer than clients wait, since a machine without a network seldom gets one."""
_ASKER = {
    None: "a team without a hub token",
    "team": "the team's hub token",
    "operator": "this service's hub token",
}
_REMEDY = {
    None: "and have an admin set the team's hub token, of an account that accepted them",
    "team": "for the account of that token",
    "operator": "for the account of that token",
}


@contextmanager
def translated_errors(
    kind: Kind,
    repository: str,
    revision: str | None,
    path: str | None = None,
    *,
    owner: TokenOwner | None,
) -> Iterator[None]:
    """Translate every error of a request to the hub, and of parsing its answer.

    `owner` is the owner of the token. The hub returns content that anyone may write, and its client checks little of
    it. So an exception that is not of the network means that the answer has an unreadable form.
    """
    at = f"{repository}@{revision}" if revision else repository
    is_model = kind == "model"
    unknown = UnknownModel if is_model else UnknownDataset
    gated = GatedModel if is_model else UnusableDataset
    error: SecateurError

    import httpx2
    from huggingface_hub.errors import (
        DisabledRepoError,
        EntryNotFoundError,
        GatedRepoError,
        HfHubHTTPError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    try:
        yield
        return
    except SecateurError as ours:
        error = ours
    except GatedRepoError:
        error = gated(
            f"{at} is gated: its owner gives access on request, and {_ASKER[owner]} has none. Accept the terms on the "
            f"hub, {_REMEDY[owner]}",
            param=kind,
        )
    except (RepositoryNotFoundError, DisabledRepoError):
        error = unknown(
            f"the hub has no {kind} {repository!r}, or it is private and {_ASKER[owner]} may not see it",
            param=kind,
        )
    except RevisionNotFoundError:
        error = unknown(f"{repository!r} has no revision {revision!r}", param=kind)
    except EntryNotFoundError:
        error = (UnusableModel if is_model else UnusableDataset)(f"{at} has no file {path!r}", param=kind)
    except HfHubHTTPError as failure:
        status = failure.response.status_code
        if status == 403:
            error = gated(f"the hub refuses {_ASKER[owner]} access to {at}", param=kind)
        elif status == 401 and owner == "team":
            error = gated(
                "the hub does not accept the team's hub token: it is wrong, or was revoked; an admin of the team can "
                "set another",
                param=kind,
            )
        elif status == 401:
            error = HubUnavailable("the hub does not accept this service's token; its operator must replace it")
        else:
            error = HubUnavailable(f"the hub answers {status} when asked for {at}; try again later", param=kind)
    except (httpx2.HTTPError, httpx2.InvalidURL, OSError, json.JSONDecodeError, UnicodeError) as failure:
        if isinstance(failure, OSError) and failure.errno in (errno.ENOSPC, errno.EDQUOT):
            raise  # An error of this machine's disk.
        error = HubUnavailable(
            f"the hub cannot be reached for {at} ({type(failure).__name__}); try again later",
            param=kind,
            retry_after=_NO_NETWORK_SECONDS if isinstance(failure, httpx2.ConnectError) else None,
        )
    except MemoryError:
        raise  # An error of this service.
    except Exception as failure:
        log.warning("the hub's answer cannot be read", kind=kind, repository=repository, error=repr(failure)[:300])
        error = (UnusableModel if is_model else UnusableDataset)(
            f"what the hub says of {at} cannot be read ({type(failure).__name__}): its card, a file or another of its "
            "facts has a form that the hub's library does not take",
            param=kind,
        )
    raise error
