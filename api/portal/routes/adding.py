"""Pages that add models and datasets: uploaded from the browser, or registered from a path on the server."""

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from pydantic import ValidationError
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response

from api.dependencies import DatabaseSession, State
from api.portal.forms.errors import errors_by_field, status_of
from api.portal.forms.upload import Sender, sent_form, take_files
from api.portal.rendering import page
from api.portal.session import CSRF_FIELD, Admin, Form, Member, Posted, Visit
from core.database import transaction
from core.engine.checkpoints.files import COMPANIONS, INDEX_FILE, PICKLES
from core.service.registry import service
from core.service.registry.schemas import DatasetBody, ModelBody
from core.service.registry.uploads import list_uploads
from core.service.sources.folders import allowed_roots
from core.service.teams.principal import Principal
from core.settings import Settings
from secateur_wire.errors import ApiError, Forbidden
from secateur_wire.provenance import PROVENANCE
from secateur_wire.uploads import Upload, UploadKind

router = APIRouter()

_MOST_SHOWN = 50
FORMATS = (
    ("", "by the file's name"),
    ("text", "plain text"),
    ("jsonl", "texts, JSONL"),
    ("parquet", "texts, Parquet"),
    ("chat_jsonl", "conversations, JSONL"),
    ("chat_parquet", "conversations, Parquet"),
    ("image_parquet", "images, Parquet"),
)
FOLDERS = (("image_folder", "images, a folder for each class"),)


@dataclass(frozen=True)
class _Noun:
    """Forms and services of one kind of object: models or datasets; `kind` is one of `noun`."""

    noun: str
    kind: UploadKind
    title: str
    body: type[ModelBody] | type[DatasetBody]
    read: Callable[[Any, Settings], Any]
    register: Callable[[Session, Principal, Any], tuple[Any, bool]]
    is_checked: bool
    """True where reading uses a slot for checks."""
    takes: tuple[str, ...]
    """Names of its files, or `*` and a suffix."""

    @property
    def fields(self) -> tuple[str, ...]:
        return (*self.body.model_fields, "files")


_NOUNS = {
    each.noun: each
    for each in (
        _Noun(
            "models",
            "model",
            "Models",
            ModelBody,
            service.read_model,
            service.register_model,
            False,
            (*COMPANIONS, INDEX_FILE, PROVENANCE, "*.safetensors"),
        ),
        _Noun(
            "datasets",
            "dataset",
            "Datasets",
            DatasetBody,
            service.read_dataset,
            service.register_dataset,
            True,
            (),
        ),
    )
}


def _noun(name: str) -> _Noun:
    if name not in _NOUNS:
        raise HTTPException(404)
    return _NOUNS[name]


@router.get("/{noun}/add/upload")
def upload_page(request: Request, noun: str, caller: Member, session: DatabaseSession) -> Response:
    return _upload_page(Visit(request, session, caller), _noun(noun), dict(request.query_params))


@router.post("/{noun}/add/upload")
async def upload(request: Request, noun: str, caller: Sender, state: State) -> Response:
    """Upload the whole form with its files, where no script sends the files in parts."""
    form = Form()
    added = _noun(noun)
    try:
        async with sent_form(request) as (form, files):
            document = await take_files(state, caller, added.kind, _without_token(form), files)
    except Forbidden:
        raise
    except (ApiError, ValidationError) as error:
        return await run_in_threadpool(_upload_refused, request, caller, added, form, error)
    return RedirectResponse(f"/portal/{noun}/{document.id}", 303)


@router.get("/{noun}/add/register")
def register_page(request: Request, noun: str, caller: Admin, state: State) -> Response:
    return _register_page(request, _noun(noun), state.settings, dict(request.query_params))


@router.post("/{noun}/add/register")
def register(request: Request, noun: str, caller: Admin, state: State, posted: Posted) -> Response:
    added, fields = _noun(noun), _without_token(posted)
    try:
        body = added.body.model_validate(fields)
        with state.check_slots.slot(caller.team_id) if added.is_checked else nullcontext():
            read = added.read(body, state.settings)
        with transaction(state.sessions) as session:
            document, _ = added.register(session, caller, read)
    except (ApiError, ValidationError) as error:
        return _register_page(request, added, state.settings, fields, error)
    return RedirectResponse(f"/portal/{noun}/{document.id}", 303)


def uploads_to_show(session: Session, caller: Principal, kind: UploadKind) -> dict[str, list[Upload]]:
    """Return the uploads that a member can resume, and failed ones without a later upload of the same name.

    Viewers get none, as in REST.
    """
    if caller.role == "viewer":
        return {"open": [], "refused": []}
    team, most = caller.team_id, _MOST_SHOWN
    newest: dict[str, Upload] = {}
    for upload in list_uploads(session, team, limit=most, after=None, kind=kind).data:
        newest.setdefault(upload.name, upload)
    return {
        "open": list_uploads(session, team, limit=most, after=None, kind=kind, status="open").data,
        "refused": [upload for upload in newest.values() if upload.status == "failed"],
    }


def _without_token(form: Form) -> dict[str, str]:
    return {name: value for name, value in form.fields.items() if name != CSRF_FIELD}


def _upload_refused(
    request: Request, caller: Principal, added: _Noun, form: Form, error: ApiError | ValidationError
) -> Response:
    with transaction(request.app.state.api.sessions) as session:
        return _upload_page(Visit(request, session, caller), added, _without_token(form), error)


def _upload_page(
    visit: Visit,
    added: _Noun,
    values: dict[str, str],
    error: ApiError | ValidationError | None = None,
) -> Response:
    context = {
        "added": added,
        "values": values,
        "errors": {} if error is None else errors_by_field(error, added.fields),
        "formats": FORMATS,
        "pickles": PICKLES,
        "most": visit.state.settings.form_upload_bytes,
        "uploads": uploads_to_show(visit.session, visit.caller, added.kind),
    }
    return page(visit.request, "registry/upload.html", context, status=200 if error is None else status_of(error))


def _register_page(
    request: Request,
    added: _Noun,
    settings: Settings,
    values: dict[str, str],
    error: ApiError | ValidationError | None = None,
) -> Response:
    context = {
        "added": added,
        "values": values,
        "errors": {} if error is None else errors_by_field(error, added.fields),
        "formats": (*FORMATS, *FOLDERS),
        "roots": allowed_roots(settings),
    }
    return page(request, "registry/register.html", context, status=200 if error is None else status_of(error))
