"""`secateur models` and `secateur datasets`: lists, registers, uploads and deletes the team's models and datasets."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from secateur.cli.options import ListingGroup, with_options
from secateur.cli.output import JsonOption, age, connect, explain, print_json, print_pairs, print_table, say
from secateur.cli.transfer import UploadBars, transfer_bars
from secateur.formatting import count
from secateur.uploads import model_files
from secateur_wire.datasets import Dataset, DatasetFormat
from secateur_wire.models import Model
from secateur_wire.provenance import ModelProvenance
from secateur_wire.shown_commands import shell
from secateur_wire.sizes import size

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="What jobs will call it.")]
NameOfArgument = Annotated[str, typer.Argument(metavar="NAME", help="What jobs call it.")]
SourceOption = Annotated[str | None, typer.Option(help="Where it came from, for the record.")]


@dataclass(frozen=True)
class DatasetOptions:
    """Options that describe how a dataset is read."""

    format: Annotated[
        DatasetFormat | None,
        typer.Option(
            help="Format of the file. Unset: by its suffix (.parquet is text); a folder holds images. Conversations: "
            "chat_jsonl, chat_parquet."
        ),
    ] = None
    text_field: Annotated[str, typer.Option(help="The field or column with the text, in JSONL and Parquet.")] = "text"
    image_field: Annotated[
        str | None, typer.Option(help="The column with the images, in image_parquet.", show_default="image")
    ] = None
    label_field: Annotated[
        str | None, typer.Option(help="The column with the labels, in image_parquet.", show_default="label")
    ] = None
    source: SourceOption = None


models_app = typer.Typer(cls=ListingGroup, help="The models that can be pruned.", rich_markup_mode=None)
datasets_app = typer.Typer(
    cls=ListingGroup, help="The texts and images for calibration and evaluation.", rich_markup_mode=None
)


@models_app.callback(invoke_without_command=True)
def models(context: typer.Context, as_json: JsonOption = False) -> None:
    """List the team's models, as `list` does. `upload` sends one; `add` registers one on the server."""
    if context.invoked_subcommand is None:
        list_models(as_json)


@models_app.command("list")
def list_models(as_json: JsonOption = False) -> None:
    """List the team's models, newest first."""
    with connect() as client:
        known = list(client.models())
    if as_json:
        print_json(known)
    elif not known:
        say("There are no models yet. Send one with `secateur models upload NAME FOLDER`.")
    else:
        print_table(
            ("model", "architecture", "parameters", "prunable", "size", "dtype", "added"),
            [
                (
                    model.name,
                    model.architecture,
                    count(model.parameters),
                    _prunable(model),
                    size(model.bytes),
                    model.dtype,
                    age(model.created_at),
                )
                for model in known
            ],
            numbers=(2, 3, 4),
        )


@datasets_app.callback(invoke_without_command=True)
def datasets(context: typer.Context, as_json: JsonOption = False) -> None:
    """List the team's texts and image sets, as `list` does. `upload` sends one; `add` registers one on the server."""
    if context.invoked_subcommand is None:
        list_datasets(as_json)


@datasets_app.command("list")
def list_datasets(as_json: JsonOption = False) -> None:
    """List the team's texts and image sets, newest first."""
    with connect() as client:
        known = list(client.datasets())
    if as_json:
        print_json(known)
    elif not known:
        say("There are no datasets yet. Send one with `secateur datasets upload NAME FILE`.")
    else:
        print_table(
            ("dataset", "format", "content", "size", "added"),
            [(each.name, each.format, _content(each), size(each.bytes), age(each.created_at)) for each in known],
            numbers=(3,),
        )


@models_app.command("add")
def add_model(
    name: NameArgument,
    path: Annotated[str, typer.Argument(metavar="PATH", help="The model folder, as the server sees it.")],
    source: SourceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Register a model folder on the server."""
    with connect() as client:
        show_model(client.add_model(name, path, source=source), as_json)


@datasets_app.command("add")
@with_options
def add_dataset(
    name: NameArgument,
    path: Annotated[str, typer.Argument(metavar="PATH", help="The file or folder of images, as the server sees it.")],
    options: DatasetOptions,
    as_json: JsonOption = False,
) -> None:
    """Register a text, JSONL or Parquet file, or a folder of images, on the server."""
    with connect() as client:
        added = client.add_dataset(name, path, **vars(options))
    show_dataset(added, as_json)


@models_app.command("upload")
def upload_model(
    name: NameArgument,
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A folder with config.json and safetensors files.")],
    source: SourceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Upload a model folder of this machine. An interrupted upload goes on where it stopped."""
    _, left = model_files(folder)
    if left:
        explain(f"not uploaded, as no part of a model: {', '.join(left[:10])}{' …' if len(left) > 10 else ''}")
    with connect() as client, transfer_bars() as bars:
        model = client.upload_model(name, folder, source=source, on_progress=UploadBars(bars).show)
    show_model(model, as_json)


@datasets_app.command("upload")
@with_options
def upload_dataset(
    name: NameArgument,
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A .txt, .jsonl or .parquet file.")],
    options: DatasetOptions,
    as_json: JsonOption = False,
) -> None:
    """Upload a text, JSONL or Parquet file of this machine. An interrupted upload goes on where it stopped."""
    with connect() as client, transfer_bars() as bars:
        dataset = client.upload_dataset(name, file, **vars(options), on_progress=UploadBars(bars).show)
    show_dataset(dataset, as_json)


@models_app.command("delete")
def delete_model(name: NameOfArgument) -> None:
    """Delete a model that no waiting or running job needs."""
    with connect() as client:
        client.delete_model(name)
    say(f"{name} is deleted.")


@datasets_app.command("delete")
def delete_dataset(name: NameOfArgument) -> None:
    """Delete a dataset that no waiting or running job needs."""
    with connect() as client:
        client.delete_dataset(name)
    say(f"{name} is deleted.")


def show_model(model: Model, as_json: bool) -> None:
    """Print one registered model, as text or as JSON."""
    if as_json:
        print_json(model)
        return
    print_pairs(
        [
            ("model", model.name),
            ("architecture", f"{model.architecture} ({model.family}), {model.dtype}"),
            ("parameters", _parameters(model)),
            ("size", size(model.bytes)),
            ("content", model.revision),
            *([] if model.provenance is None else [("comes from", _origin(model.provenance))]),
        ]
    )


def _origin(provenance: ModelProvenance) -> str:
    """Format where a model comes from by its statement, or the reason why that is unknown."""
    if provenance.signature != "own":
        return f"unknown, as the signed statement does not count here: {provenance.reason}"
    source = "" if provenance.source is None else f" on {provenance.source.name}"
    return f"{provenance.job or 'a job that is not of this team'}: {provenance.method}{source}; signed by this server"


def _parameters(model: Model) -> str:
    """Format the number of parameters and of prunable ones, or the reason why they are unknown."""
    if model.discovery is None:
        return f"{count(model.parameters)}, of which {count(model.prunable_parameters)} can be pruned"
    if model.discovery.error is not None:
        return f"{count(model.parameters)}; it cannot be pruned: {model.discovery.error.message}"
    return f"{count(model.parameters)}; being examined: `{shell('secateur', 'inspect', model.name)}` waits for it"


def _prunable(model: Model) -> str:
    if model.discovery is None:
        return count(model.prunable_parameters)
    return {"failed": "cannot be", "unknown": "not known"}.get(model.discovery.state, "being examined")


def show_dataset(dataset: Dataset, as_json: bool) -> None:
    """Print one registered dataset, as text or as JSON."""
    if as_json:
        print_json(dataset)
        return
    print_pairs(
        [
            ("dataset", dataset.name),
            ("format", dataset.format),
            ("content", _content(dataset)),
            ("size", size(dataset.bytes)),
            ("sha256", dataset.sha256),
        ]
    )


def _content(dataset: Dataset) -> str:
    if dataset.images is not None:
        return f"{count(dataset.images)} images, {count(dataset.classes or 0)} classes"
    words = f"{count(dataset.documents)} documents, {count(dataset.characters)} characters"
    return "; ".join([words, *(f"left out: {each.rows} with {each.reason}" for each in dataset.left_out or ())])
