"""Command `secateur prune` on this machine: with the server of this home, which is started if none runs."""

import contextlib
from pathlib import Path

import typer

from core.settings import Settings
from secateur import Client
from secateur.cli.local_files import Importer
from secateur.cli.output import RETRIES, explain
from secateur.cli.prune import run
from secateur.cli.unfinished import PruneRequest, output_folder
from secateur.cli.watch import INTERRUPTED
from secateur.errors import NotFound
from secateur_wire.errors import Conflict
from worker.embedded.instance import open_instance
from worker.embedded.register import add_dataset, add_model
from worker.embedded.serving import serving
from worker.samples.language import MODEL, add_samples


def prune_here(settings: Settings, request: PruneRequest, output: Path, as_json: bool) -> None:
    """Make the requested model, and end a server that was started for it; see `secateur.cli.prune.run`."""
    with output_folder(output, request) as folder:
        try:
            with serving(settings, explain) as url:
                key = (settings.home.resolve() / "api-key").read_text().strip()
                with Client(url, key, retries=RETRIES) as client:
                    run(client, folder, _importer(settings), as_json)
        except KeyboardInterrupt:
            explain("stopped while the server was starting or ending; run the same command to go on")
            raise typer.Exit(INTERRUPTED) from None


def _importer(settings: Settings) -> Importer:
    def take_in_model(client: Client, name: str, path: Path) -> bool:
        with open_instance(settings) as instance, contextlib.suppress(Conflict):
            add_model(instance, name, path, say=explain)
            return True
        return False

    def take_in_text(client: Client, name: str, path: Path) -> bool:
        with open_instance(settings) as instance, contextlib.suppress(Conflict):
            add_dataset(instance, name, path)
            return True
        return False

    def fetch_sample(client: Client, name: str) -> None:
        if name != MODEL:
            return
        try:
            client.model(name)
        except NotFound:
            with open_instance(settings) as instance:
                add_samples(instance, explain)

    return Importer(take_in_model, take_in_text, fetch_sample)
