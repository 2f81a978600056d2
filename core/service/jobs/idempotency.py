"""Idempotency keys: a creating request that is sent twice creates once, and gets the first answer both times.

The row of a key is written first, in the transaction that creates. A second request with that key waits for it. It then
finds the answer, or nothing where the first request failed. Answers are encrypted with the key that the client chose,
and only a hash of that key is stored: an answer may be a new API key, which is shown once and never stored in the
clear.
"""

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from dataclasses import dataclass

from cryptography.fernet import Fernet
from sqlalchemy import Double, LargeBinary, Row, bindparam, delete, func, select, tuple_, update
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from core.database import seconds_from_now
from core.service.jobs.tables import IdempotencyKeyRow
from secateur_wire.errors import IdempotencyConflict

EXPIRED_AT_ONCE = 1000
"""Keys that are removed in one round."""


@dataclass(frozen=True)
class Answer:
    """Answer to a creating request: its status and its JSON."""

    status: int
    body: bytes


@dataclass(frozen=True)
class IdempotentRequest:
    """Request with an Idempotency-Key. Two are equal if team, key and `request` (method, path and body) are equal."""

    team_id: str
    key: str
    request: bytes
    secret: bytes

    @property
    def key_hash(self) -> bytes:
        return hashlib.sha256(self.key.encode()).digest()

    @property
    def request_hash(self) -> bytes:
        return hashlib.sha256(self.request).digest()

    @property
    def seal(self) -> Fernet:
        sealing_key = hmac.new(self.secret, b"idempotency\0" + self.key.encode(), hashlib.sha256).digest()
        return Fernet(base64.urlsafe_b64encode(sealing_key))


_SAME = (
    IdempotencyKeyRow.team_id == bindparam("of_team"),
    IdempotencyKeyRow.key_hash == bindparam("of_key", type_=LargeBinary),
)
_NEW = insert(IdempotencyKeyRow).values(
    team_id=bindparam("of_team"),
    key_hash=bindparam("of_key", type_=LargeBinary),
    request_hash=bindparam("request", type_=LargeBinary),
    expires_at=seconds_from_now(bindparam("seconds", type_=Double)),
)
_REMEMBER = (
    _NEW.on_conflict_do_update(
        index_elements=["team_id", "key_hash"],
        set_={"request_hash": _NEW.excluded.request_hash, "expires_at": _NEW.excluded.expires_at, "answer": None},
        where=IdempotencyKeyRow.expires_at <= func.clock_timestamp(),
    )
    .returning(IdempotencyKeyRow.key_hash)
    .execution_options(dml_strategy="raw")  # The values are bound parameters; the ORM would expect rows.
)
_FIRST = select(
    IdempotencyKeyRow.request_hash,
    IdempotencyKeyRow.answer,
    (IdempotencyKeyRow.expires_at <= func.clock_timestamp()).label("expired"),
).where(*_SAME)
_KEEP_ANSWER = (
    update(IdempotencyKeyRow)
    .where(*_SAME)
    .values(answer=bindparam("sealed"))
    .execution_options(synchronize_session=False)
)
"""Statement built once: building takes longer than running it, and most requests that create send a key."""


def answer_once(
    session: Session, request: IdempotentRequest, create: Callable[[], Answer], remember_seconds: float
) -> tuple[Answer, bool]:
    """Return the answer to a request, and whether it is a replay; raises IdempotencyConflict if the body differs.

    An error that `create` raises is not remembered: the transaction that holds the key's row is rolled back with it.
    """
    parameters = {"of_team": request.team_id, "of_key": request.key_hash}
    values = {"request": request.request_hash, "seconds": remember_seconds}
    fresh = session.scalar(_REMEMBER, parameters | values)
    if fresh is None:
        return _unseal(request, session.execute(_FIRST, parameters).one()), True
    answer = create()
    session.execute(_KEEP_ANSWER, parameters | {"sealed": _seal(request, answer)})
    return answer, False


def stored_answer(session: Session, request: IdempotentRequest) -> Answer | None:
    """Return the first answer to a request; None where there is none yet. Raises IdempotencyConflict."""
    first = session.execute(_FIRST, {"of_team": request.team_id, "of_key": request.key_hash}).one_or_none()
    return None if first is None or first.expired else _unseal(request, first)


def expire_idempotency_keys(session: Session) -> int:
    """Remove a batch of expired keys, the longest expired first; return their number.

    Callers repeat this until nothing is left. Keys of requests that are being answered are left for the next call.
    """
    key = (IdempotencyKeyRow.team_id, IdempotencyKeyRow.key_hash)
    past = (
        select(*key)
        .where(IdempotencyKeyRow.expires_at <= func.statement_timestamp())
        .order_by(IdempotencyKeyRow.expires_at)
        .limit(EXPIRED_AT_ONCE)
        .with_for_update(skip_locked=True)
        .cte("past")  # Picked once: PostgreSQL may run a subquery again for each row, and its limit then has no effect.
    )
    removed = session.scalars(
        delete(IdempotencyKeyRow)
        .where(tuple_(*key).in_(select(past.c.team_id, past.c.key_hash)))
        .returning(IdempotencyKeyRow.key_hash)
    )
    return len(removed.all())


def _seal(request: IdempotentRequest, answer: Answer) -> bytes:
    return request.seal.encrypt(json.dumps([answer.status, answer.body.decode()]).encode())


def _unseal(request: IdempotentRequest, first: Row[bytes, bytes | None, bool]) -> Answer:
    if first.request_hash != request.request_hash:
        raise IdempotencyConflict("this Idempotency-Key was used with another request", param="Idempotency-Key")
    assert first.answer is not None  # it is committed with its key
    status, body = json.loads(request.seal.decrypt(first.answer))
    return Answer(status, body.encode())
