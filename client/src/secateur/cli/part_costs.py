"""`secateur part-costs`: shows how long a model's parts take in an engine, or has a worker measure it."""

import time
from typing import Annotated, Any, Final

import typer

from secateur.cli.output import JsonOption, WaitPrinter, connect, explain, print_json, print_pairs, print_table, say
from secateur.cli.submit import ModelArgument
from secateur_wire.part_costs import CostsTable, PartCostsAnswer, Times

_LOOK_SECONDS: Final = 2.0
_FAILED: Final = 1


def part_costs(
    model: ModelArgument,
    engine: Annotated[str, typer.Option(help="transformers, llama-cpp, openvino or onnxruntime.")],
    type: Annotated[str | None, typer.Option(help="Type of the engine's files, such as Q8_0.")] = None,
    threads: Annotated[int | None, typer.Option(help="Unset: all processors of the worker.")] = None,
    batch: Annotated[int | None, typer.Option(help="Sequences at once. Unset: 1.")] = None,
    prompt_tokens: Annotated[int | None, typer.Option(help="Tokens of the prefill. Unset: 128.")] = None,
    context_tokens: Annotated[
        int | None, typer.Option(help="Tokens before a decode step, the prompt included. Unset: 128.")
    ] = None,
    queue: Annotated[str | None, typer.Option(help="Queue whose workers measure. Unset: default.")] = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Have a worker measure, again where it is measured, and wait for it.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Show how long each part of a model takes in an engine; --measure has a worker measure it, which takes minutes."""
    work: dict[str, Any] = {
        "type": type,
        "threads": threads,
        "batch": batch,
        "prompt_tokens": prompt_tokens,
        "context_tokens": context_tokens,
        "queue": queue,
    }
    with connect() as client:
        if measure:
            client.measure_part_costs(model, engine, on_wait=WaitPrinter(), **work)
        costs = client.part_costs(model, engine, on_wait=WaitPrinter(), **work)
        while measure and costs.status == "waiting":
            time.sleep(_LOOK_SECONDS)
            costs = client.part_costs(model, engine, **work)
    if as_json:
        print_json(costs)
    elif costs.table is not None:
        _print_table(costs, costs.table)
    elif costs.error is not None:
        explain(costs.error.message)
    else:
        say("A worker will measure it." if costs.status == "waiting" else "Not measured: --measure has a worker do so.")
    if costs.error is not None:
        raise typer.Exit(_FAILED)


def _print_table(costs: PartCostsAnswer, table: CostsTable) -> None:
    dense, error = table.dense, table.dense_standard_error
    print_pairs(
        [
            ("engine", f"{table.version}, {costs.type}"),
            ("machine", f"{table.machine}, {table.threads} threads"),
            ("measured", f"{table.measured_on}, {table.rounds} rounds, models of {table.layers} layers"),
            ("work", f"{costs.batch} × {costs.prompt_tokens} tokens, then one after {costs.context_tokens}"),
            ("dense prefill", f"{dense.prefill_ms:.2f} ± {error.prefill_ms:.2f} ms"),
            ("dense decode step", f"{dense.decode_ms:.2f} ± {error.decode_ms:.2f} ms"),
        ]
    )
    print_table(
        ("part", "prefill, ms", "decode step, ms"),
        [
            *(_row(f"attention, {each.size} KV groups", each) for each in table.attention),
            *(_row(f"FFN of {each.size:,} channels", each) for each in table.ffn),
            *(_row(f"vocabulary of {each.size:,} tokens", each) for each in table.vocabulary),
            _row("rest", table.rest),
        ],
        numbers=(1, 2),
    )


def _row(title: str, times: Times) -> tuple[str, str, str]:
    return title, f"{times.prefill_ms:.3f}", f"{times.decode_ms:.3f}"
