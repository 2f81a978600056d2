"""Token streams through the model: hidden states between two blocks, in micro-batches."""

from collections.abc import Hashable, Iterator

import torch
from torch import Tensor, nn

from core.engine.datasets.counted_tokens import number_of_places
from core.engine.models.streamed import BlockArguments, StreamedModel, call_block
from core.engine.resume.kinds import BLOCK
from core.engine.resume.store import ResumeStore


class ActivationBudget:
    """Bytes of hidden states that all streams may keep in memory; the work folder holds the rest."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.used = 0

    def take(self, size: int) -> bool:
        if self.used + size > self.limit:
            return False
        self.used += size
        return True

    def give(self, size: int) -> None:
        self.used -= size


class Stream:
    """Set of tokens [sequences, time] and its hidden states after the blocks done so far.

    `tokens` are the ids by micro-batch, which may say which tokens count (`core.engine.datasets.counted_tokens`).
    `dtype` is that of its forwards. A stream that is not `resumable` writes only hidden states beyond the budget, and
    removes them once it has passed them.
    """

    def __init__(
        self,
        name: str,
        tokens_NT: Tensor,
        streamed: StreamedModel,
        store: ResumeStore,
        budget: ActivationBudget,
        *,
        dtype: torch.dtype,
        micro_batch: int,
        resumable: bool = True,
    ) -> None:
        self.name = name
        self.tokens = list(tokens_NT.split(micro_batch))
        self.shape = tokens_NT.shape
        self.length = tokens_NT.shape[1]
        self.token_count = tokens_NT.numel()
        self.dtype = dtype
        self.done = 0
        self._streamed = streamed
        self._store = store
        self._budget = budget
        self._resumable = resumable
        self._micro_batch = micro_batch
        self._saved_by: dict[int, int] = {}
        self._held: list[Tensor | None] = [None] * len(self.tokens)
        self._arguments = RecordedArguments(streamed, dtype)

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def device(self) -> torch.device:
        return self._streamed.device

    @property
    def places(self) -> list[Tensor | None]:
        """Places of each micro-batch whose next token counts, as `StreamedModel.places` says."""
        return [self._streamed.places(each) for each in self.tokens]

    def counted_in(self, sequences: int) -> int:
        """Return the number of places in the first `sequences` whose next token counts."""
        return number_of_places(torch.cat(self.tokens)[:sequences])

    def start(self) -> None:
        """Embed the tokens: the state before block 0."""
        for index, tokens_BT in enumerate(self.tokens):
            self._keep(index, self._streamed.embed(tokens_BT).to(self.dtype), done=0)

    def resume(self, done: int, saved_by: int | None = None) -> None:
        """Continue from the state after `done` blocks in the work folder.

        It was saved in micro-batches of `saved_by` sequences, which may be larger than now.
        """
        self.done = done
        self._saved_by = {} if saved_by is None else {done: saved_by}

    def arguments(self, block: int, batch: int) -> BlockArguments:
        """Return a micro-batch's arguments of block `block` except the hidden states, in this stream's dtype."""
        return self._arguments.of(self.tokens[batch])[block]

    def hidden(self, index: int) -> Tensor:
        """Return the hidden states [sequences, time, hidden_size] of a micro-batch before the next block."""
        in_memory = self._held[index]
        if in_memory is not None:
            return in_memory
        saved_by = self._saved_by.get(self.done, self._micro_batch)
        file, start = divmod(index * self._micro_batch, saved_by)
        hidden = self._store.read(BLOCK, self.done, self._activation(file))["hidden"]
        if saved_by != self._micro_batch:
            hidden = self._streamed.sequences_of(hidden, start, len(self.tokens[index])).clone()
        return hidden.to(self._streamed.device)

    def store(self, index: int, hidden: Tensor) -> None:
        """Store a micro-batch's output of the current block; call `step` once all are stored."""
        self._keep(index, hidden, done=self.done + 1)

    def step(self) -> None:
        self.done += 1

    def skip_block(self) -> None:
        """Skip a block: the hidden states after it are those before it."""
        for batch, hidden in self.batches():
            self.store(batch, hidden)
        self.step()

    def advance(self, block: nn.Module, index: int) -> None:
        """Run all micro-batches through block `index`."""
        self.advance_from(self, block, index)

    def advance_unwatched(self, block: nn.Module, index: int) -> None:
        """Advance through block `index`, whose modules have no hooks: only the hidden states after it matter."""
        self.advance(block, index)

    def advance_from(self, source: "Stream", block: nn.Module, index: int) -> None:
        """Run another stream's hidden states, of the same tokens, through block `index`, and continue from there."""
        self.done = source.done
        for batch, hidden in source.batches():
            self.store(batch, call_block(block, hidden, source.arguments(index, batch)))
        self.step()

    def advance_to(self, ahead: "Stream") -> None:
        """Take the hidden states of another stream of the same tokens, which is one block ahead and is closed."""
        for batch, hidden in ahead.batches():
            self.store(batch, hidden)
        ahead.close()
        self.step()

    def with_same_tokens(self, name: str) -> "Stream":
        """Return a new stream of the same tokens; it has no hidden states yet, and is never resumed."""
        return Stream(
            name,
            torch.cat(self.tokens),
            self._streamed,
            self._store,
            self._budget,
            dtype=self.dtype,
            micro_batch=self._micro_batch,
            resumable=False,
        )

    def close(self) -> None:
        for index, hidden in enumerate(self._held):
            if hidden is not None:
                self._budget.give(hidden.nbytes)
            self._discard(index, self.done)
        self._held = [None] * len(self)

    def batches(self) -> Iterator[tuple[int, Tensor]]:
        for index in range(len(self)):
            yield index, self.hidden(index)

    def equals(self, other: "Stream") -> bool:
        """Return True while the hidden states are those of another stream of the same tokens."""
        both = zip(self.batches(), other.batches(), strict=True)
        return all(torch.equal(one, another) for (_, one), (_, another) in both)

    def _keep(self, index: int, hidden: Tensor, *, done: int) -> None:
        earlier = self._held[index]
        if earlier is not None:
            self._budget.give(earlier.nbytes)
        fits = self._budget.take(hidden.nbytes)
        if (done and self._resumable) or not fits:
            self._store.write(BLOCK, done, self._activation(index), {"hidden": hidden})
        self._held[index] = hidden if fits else None
        self._discard(index, done - 1)

    def _discard(self, index: int, done: int) -> None:
        """Remove a micro-batch's state after this many blocks, unless the stream can resume from it."""
        if not self._resumable:
            self._store.discard(BLOCK, done, self._activation(index))

    def _activation(self, index: int) -> str:
        return f"{self.name}-{index:04d}"


class RecordedArguments:
    """Arguments of all blocks except the hidden states, with floating-point tensors in a dtype.

    Where they depend on the length alone they are recorded once for all sequences of that length, else for each batch
    of tokens. Where one block leaves values in them that another reads, they are kept for each batch to the end; such a
    pass cannot be resumed.
    """

    def __init__(self, streamed: StreamedModel, dtype: torch.dtype) -> None:
        self._streamed = streamed
        self._dtype = dtype
        self._recorded: dict[Hashable, tuple[Tensor, list[BlockArguments]]] = {}

    def of(self, tokens_BT: Tensor) -> list[BlockArguments]:
        """Return the arguments of each block for these token ids [sequences, time]."""
        family = self._streamed.folder.family
        by_length = family.arguments == "length"
        key = tokens_BT.shape[1] if by_length else (tokens_BT.data_ptr(), tokens_BT.shape)
        if key not in self._recorded:
            if "resume" not in family.refused:
                self._recorded.clear()
            cast: dict[int, Tensor] = {}
            arguments = [_cast(each, self._dtype, cast) for each in self._streamed.block_arguments(tokens_BT)]
            self._recorded[key] = tokens_BT, arguments  # the stored tokens keep their address from being used again
        return self._recorded[key][1]


def _cast(arguments: BlockArguments, dtype: torch.dtype, done: dict[int, Tensor]) -> BlockArguments:
    """Cast the floating-point tensors among a block's arguments; tensors shared between layers stay shared."""

    def cast(value: object) -> object:
        if isinstance(value, Tensor) and value.is_floating_point():
            if id(value) not in done:
                done[id(value)] = value.to(dtype)
            return done[id(value)]
        if isinstance(value, tuple | list):
            return type(value)(cast(each) for each in value)
        if isinstance(value, dict):
            return {key: cast(each) for key, each in value.items()}
        return value

    positional, keywords = arguments
    return tuple(cast(each) for each in positional), {key: cast(each) for key, each in keywords.items()}
