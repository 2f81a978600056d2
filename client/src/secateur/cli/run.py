"""`secateur run`: a chat with a downloaded artifact, in whichever engine is installed here."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from secateur.cli.output import explain, say
from secateur.engines.choice import KINDS, choose
from secateur.engines.engine import Engine
from secateur.errors import RunError


def run(
    place: Annotated[Path, typer.Argument(metavar="DIR", help="A downloaded artifact, or one of its files.")],
    prompt: Annotated[str | None, typer.Option(help="Go on from this text once, and end; unset: chat.")] = None,
    engine: Annotated[
        str | None,
        typer.Option(help=f"One of {', '.join(kind.id for kind in KINDS)}; unset: the first that is installed."),
    ] = None,
    most_tokens: Annotated[
        int, typer.Option("--tokens", min=1, help="Most tokens of an answer, at most half the context.")
    ] = 256,
) -> None:
    """Chat with an artifact's added file in llama.cpp, OpenVINO or ONNX Runtime: each line typed is answered."""
    if engine not in (None, *(kind.id for kind in KINDS)):
        raise typer.BadParameter(f"--engine {engine}: use one of {', '.join(kind.id for kind in KINDS)}")
    kind, file = choose(place, engine)
    print(f"{file.name} in {kind.name}{'' if prompt is not None else '; Ctrl-D ends the chat'}", file=sys.stderr)
    model = kind.open(file)
    most_tokens = min(most_tokens, model.context // 2)
    with kind.one_sentence(f"{file.name} failed"):
        if prompt is not None:
            say(prompt + "".join(model.go_on(prompt, most_tokens)))
            return
        messages: list[dict[str, str]] = []
        for line in sys.stdin:
            messages.append({"role": "user", "content": line.rstrip("\n")})
            _forget_oldest(messages, model, most_tokens)
            answer = ""
            for piece in model.answer(messages, most_tokens):
                print(piece, end="", flush=True)
                answer += piece
            print(flush=True)
            messages.append({"role": "assistant", "content": answer})


def _forget_oldest(messages: list[dict[str, str]], model: Engine, most_tokens: int) -> None:
    """Drop the oldest turns of a conversation that leaves no room for an answer in the context, and say so."""
    turns = len(messages)
    while (length := model.length(messages)) + most_tokens >= model.context:
        if len(messages) == 1:
            raise RunError(
                f"this line has {length:,} tokens, and its answer up to {most_tokens:,}: the file's context is "
                f"{model.context:,}. Write less, or give a smaller --tokens"
            )
        del messages[:2]
    if len(messages) < turns:
        explain(f"the conversation exceeds the context of {model.context:,} tokens: its oldest turns are forgotten")
