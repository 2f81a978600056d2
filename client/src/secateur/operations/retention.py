"""Operations on artifacts: publish, keep, remove."""

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pydantic import JsonValue

from secateur.operations.calls import Calls, given
from secateur.transport import segment
from secateur_wire.publications import Publication
from secateur_wire.retention import Retention, RetentionPolicy, RetentionPreview

_LOOK_SECONDS = 1.0

Policy = RetentionPolicy | Mapping[str, Any]


class RetentionOperations(Calls):
    """Operations on publications and on retention."""

    def publish(
        self,
        job_id: str,
        to: str,
        *,
        token: str | None = None,
        revision: str | None = None,
        private: bool | None = None,
        message: str | None = None,
        access_key: str | None = None,
        secret_key: str | None = None,
        session_token: str | None = None,
        region: str | None = None,
        endpoint: str | None = None,
        despite_gates: bool = False,
        idempotency_key: str | None = None,
    ) -> Publication:
        """Push a job's artifact to `hub:org/name` (with `token`), or to a bucket, and return before it is done.

        A bucket is `s3://bucket/prefix`, with `access_key` and `secret_key`. See `wait_for_publication`.

        The server stores the credentials encrypted, and only until the publication has ended.
        """
        body = given(
            to=to,
            token=token,
            revision=revision,
            private=private,
            message=message,
            access_key=access_key,
            secret_key=secret_key,
            session_token=session_token,
            region=region,
            endpoint=endpoint,
            despite_gates=despite_gates,
        )
        path = f"jobs/{segment(job_id)}/publish"
        return self._create(path, Publication, body, idempotency_key=idempotency_key)

    def publications(self, job_id: str) -> Iterator[Publication]:
        """Iterate over the publications of a job's artifact, newest first."""
        return self._list(f"jobs/{segment(job_id)}/publications", Publication)

    def publication(self, publication_id: str) -> Publication:
        """Return one publication: its progress, the place of the artifact, or the error."""
        return self._transport.call("GET", f"publications/{segment(publication_id)}", Publication)

    def cancel_publication(self, publication_id: str) -> Publication:
        """Cancel a publication; files that have arrived stay there."""
        return self._transport.call("POST", f"publications/{segment(publication_id)}/cancel", Publication)

    def wait_for_publication(
        self, publication_id: str, on_progress: Callable[[Publication], None] | None = None
    ) -> Publication:
        """Wait until a publication has ended, and return it; `on_progress` gets each intermediate state."""
        while True:
            publication = self.publication(publication_id)
            if on_progress is not None:
                on_progress(publication)
            if publication.finished:
                return publication
            time.sleep(_LOOK_SECONDS)

    def retention(self) -> Retention:
        """Return the team's retention policy. Needs an admin key, as all calls on retention do."""
        return self._transport.call("GET", "team/retention", Retention)

    def set_retention(self, policy: Policy) -> Retention:
        """Set the retention policy; it removes at most 1,000 artifacts a minute. Use `preview_retention` first."""
        return self._transport.call("PUT", "team/retention", Retention, body=_policy(policy))

    def clear_retention(self) -> Retention:
        """Remove the retention policy: everything is kept from now on."""
        return self._transport.call("DELETE", "team/retention", Retention)

    def preview_retention(self, policy: Policy) -> RetentionPreview:
        """Return the artifacts that a policy would remove now, and the reasons why the rest would stay."""
        return self._transport.call("POST", "team/retention/preview", RetentionPreview, body=_policy(policy))


def _policy(policy: Policy) -> dict[str, JsonValue]:
    return policy.model_dump(mode="json") if isinstance(policy, RetentionPolicy) else dict(policy)
