"""Gradients of the loss in one decoder block after the other, never of the entire model at once.

The tokens go forward through the blocks, and the input of each block is stored, in memory or in scratch files. The
backward pass starts from the gradient in the last block's output. For each block, its weights are loaded, it runs
again, and the gradients in its weights and its input are computed; then it is emptied. In memory are one block with its
gradients and the activation budget, so that a model larger than the memory for all its gradients can be scored.
"""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from core.engine.datasets.counted_tokens import mean_predictions
from core.engine.models.streamed import StreamedModel, call_block
from core.engine.pruning.streams.stream import Stream
from secateur_wire.errors import UnsupportedArchitecture

_CHUNK = 256

OnBlock = Callable[[int, Mapping[str, Tensor], Mapping[str, Tensor], Mapping[str, Tensor]], None]
"""Callback for each block, with its number and three mappings by parameter's name within the block.

They are the weights, the gradients of the mean loss in them, and the means of the squares of each sequence's gradient
(empty unless `squares` is set).
"""

OnStream = Callable[[int, int, Tensor, Tensor], None]
"""Callback for the residual stream before a block, or after the last one. Its arguments are the place, counted from 0,
the sequence's number, the stream [1, time, hidden_size], and the gradient of the sequence's mean loss in it."""


def backward_blocks(
    stream: Stream,
    names: Sequence[Sequence[str]],
    on_block: OnBlock,
    *,
    squares: bool = False,
    drawn: torch.Generator | None = None,
    on_stream: OnStream | None = None,
) -> float:
    """Call `on_block` for every block, the last one first; return the loss, the mean over tokens in nats.

    `stream` keeps all hidden states of its tokens, one sequence at a time, until each was used here. `names[n]` are the
    parameters of block n with requested gradients. The loss is that of the next tokens that count or, with a generator
    `drawn`, of tokens drawn from the model's own predictions: then the mean product of gradients is the Fisher
    information itself. `on_stream` is called for the last block's output and then for each block's input. Raises
    UnsupportedArchitecture where a block reads inner values of another.
    """
    streamed, tokens, blocks = stream.streamed, stream.tokens, range(len(stream.streamed))
    why = streamed.folder.family.refused.get("resume")
    if why is not None:
        raise UnsupportedArchitecture(f"gradients of one block after the other cannot be taken: {why}", param="model")
    stream.pass_blocks("passing blocks forward")
    losses, upstream, predictions = [], [], mean_predictions(torch.cat(tokens))
    for batch, tokens_1T in enumerate(tokens):
        hidden_1TD = stream.take(batch, len(blocks))
        loss, gradient_1TD = _loss(streamed, tokens_1T, hidden_1TD, drawn, predictions)
        if on_stream is not None:
            on_stream(len(blocks), batch, hidden_1TD, gradient_1TD)
        losses.append(loss)
        upstream.append(gradient_1TD)

    def backward(index: int, block: nn.Module, batch: int, wanted: Sequence[Tensor]) -> Sequence[Tensor]:
        hidden = stream.take(batch, index).requires_grad_()
        output = call_block(block, hidden, stream.arguments(index, batch))
        upstream[batch], *gradients = torch.autograd.grad(output, [hidden, *wanted], upstream[batch])
        if on_stream is not None:
            on_stream(index, batch, hidden.detach(), upstream[batch])
        return gradients

    def take_gradients(index: int, block: nn.Module) -> None:
        """Add one block's gradients. Its tensors are freed on return, before the next block is filled."""
        wanted = _requested_parameters(block, names[index])
        sums = {name: torch.zeros(each.shape, device=each.device) for name, each in wanted.items()}
        square_sums = {name: torch.zeros_like(each) for name, each in sums.items() if squares}
        for batch in range(len(tokens)):
            for name, gradient in zip(wanted, backward(index, block, batch, [*wanted.values()]), strict=True):
                sums[name] += gradient
                if squares:
                    square_sums[name] += gradient.float().square()
        on_block(
            index,
            {name: each.detach().float() for name, each in wanted.items()},
            {name: each.div_(len(tokens)) for name, each in sums.items()},
            {name: each.div_(len(tokens)) for name, each in square_sums.items()},
        )

    for index, block in streamed.filled_blocks(blocks[::-1], "taking gradients of blocks", stream.dtype):
        take_gradients(index, block)
    return sum(losses) / len(losses)


def draw_tokens(logits_PV: Tensor, drawn: torch.Generator) -> Tensor:
    """Return a token drawn from each position's distribution, with one random number per position: [positions].

    `torch.multinomial` draws one number for every token of the vocabulary, which takes as long as the head's product
    with its gradient.
    """
    below_PV = logits_PV.softmax(dim=-1).cumsum(dim=-1)
    at_P1 = torch.rand(len(logits_PV), 1, generator=drawn).to(below_PV.device) * below_PV[:, -1:]
    return torch.searchsorted(below_PV, at_P1, right=True)[:, 0].clamp(max=logits_PV.shape[1] - 1)


def _requested_parameters(block: nn.Module, names: Sequence[str]) -> dict[str, Tensor]:
    parameters = dict(block.named_parameters())
    return {name: parameters[name].requires_grad_() for name in names if name in parameters}


def _loss(
    streamed: StreamedModel,
    tokens_1T: Tensor,
    hidden_1TD: Tensor,
    drawn: torch.Generator | None,
    predictions: float,
) -> tuple[float, Tensor]:
    """Return a sequence's loss, divided by the `predictions` of a mean one, and its gradient in the last output."""
    hidden = hidden_1TD.detach().requires_grad_()
    targets_T = tokens_1T[0, 1:].to(streamed.device)
    total = 0.0
    gradient = torch.zeros_like(hidden)
    for positions in (tokens_1T[0, 1:] >= 0).nonzero()[:, 0].split(_CHUNK):
        logits_PV = streamed.logits(tokens_1T, hidden.to(streamed.dtype), positions)[0].float()
        targets_P = targets_T[positions]
        if drawn is not None:
            targets_P = draw_tokens(logits_PV.detach(), drawn)
        loss = nn.functional.cross_entropy(logits_PV, targets_P, reduction="sum") / predictions
        gradient += torch.autograd.grad(loss, hidden)[0]
        total += loss.item()
    return total, gradient
