"""Token streams through the model: hidden states between two blocks, in micro-batches."""

from collections.abc import Hashable, Iterator
from copy import copy

import torch
from torch import Tensor, nn

from core.engine.datasets.counted_tokens import number_of_places
from core.engine.models.streamed import BlockArguments, StreamedModel, call_block
from core.engine.pruning.streams.hidden_states import ActivationBudget, HiddenStates
from core.engine.resume.store import ResumeStore


class Stream:
    """Set of tokens [sequences, time] and its hidden states after the blocks done so far.

    `tokens` are the ids by micro-batch, which may say which tokens count (`core.engine.datasets.counted_tokens`).
    `dtype` is that of its forwards. A stream that is not `resumable` writes only hidden states beyond the budget, and
    removes them once it has passed them. With `keeps_all` it keeps the hidden states before and behind every block; it
    then computes a block again only where another object watches the block's modules.
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
        keeps_all: bool = False,
    ) -> None:
        self.name = name
        self.tokens = list(tokens_NT.split(micro_batch))
        self.shape = tokens_NT.shape
        self.length = tokens_NT.shape[1]
        self.token_count = tokens_NT.numel()
        self.dtype = dtype
        self.done = 0
        self.streamed = streamed
        self._store = store
        self._budget = budget
        self._keeps_all = keeps_all
        self._micro_batch = micro_batch
        self._saved_by: dict[int, int] = {}
        self._states = HiddenStates(name, store, budget, streamed.device, is_record=resumable)
        self._arguments = RecordedArguments(streamed, dtype)

    def __len__(self) -> int:
        return len(self.tokens)

    @property
    def device(self) -> torch.device:
        return self.streamed.device

    @property
    def places(self) -> list[Tensor | None]:
        """Places of each micro-batch whose next token counts, as `StreamedModel.places` says."""
        return [self.streamed.places(each) for each in self.tokens]

    def counted_in(self, sequences: int) -> int:
        """Return the number of places in the first `sequences` whose next token counts."""
        return number_of_places(torch.cat(self.tokens)[:sequences])

    def start(self) -> None:
        """Embed the tokens: the state before block 0."""
        self.done = 0
        if self._keeps_all and self._states.has(0, 0):
            return
        self._states.close()
        for index, tokens_BT in enumerate(self.tokens):
            self._states.put(0, index, self.streamed.embed(tokens_BT).to(self.dtype))

    def resume(self, done: int, saved_by: int | None = None) -> None:
        """Continue from the state after `done` blocks in the work folder.

        It was saved in micro-batches of `saved_by` sequences, which may be larger than now.
        """
        self.done = done
        self._saved_by = {} if saved_by is None else {done: saved_by}

    def after(self, done: int) -> "Stream":
        """Return the stream after this many blocks, where it keeps all hidden states."""
        assert self._keeps_all
        stream = copy(self)
        stream.done = done
        return stream

    def arguments(self, block: int, batch: int) -> BlockArguments:
        """Return a micro-batch's arguments of block `block` except the hidden states, in this stream's dtype."""
        return self._arguments.of(self.tokens[batch])[block]

    def hidden(self, index: int) -> Tensor:
        """Return the hidden states [sequences, time, hidden_size] of a micro-batch before the next block."""
        saved_by = self._saved_by.get(self.done, self._micro_batch)
        if saved_by == self._micro_batch:
            return self._states.get(self.done, index)
        file, start = divmod(index * self._micro_batch, saved_by)
        hidden = self._states.read(self.done, file)
        return self.streamed.sequences_of(hidden, start, len(self.tokens[index])).clone().to(self.device)

    def take(self, index: int, done: int) -> Tensor:
        """Return the hidden states of a micro-batch after `done` blocks, and keep them no longer."""
        hidden = self._states.get(done, index)
        self._states.remove(done, index)
        return hidden

    def store(self, index: int, hidden: Tensor) -> None:
        """Store a micro-batch's output of the current block; call `step` once all are stored."""
        if not self._keeps_all:
            self._states.remove(self.done, index)
        elif self._states.has(self.done + 1, index):
            return
        self._states.put(self.done + 1, index, hidden)

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
        if self._states.has(self.done + 1, 0):
            self.step()
        else:
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

    @torch.no_grad()
    def through_blocks(self, what: str) -> Iterator[int]:
        """Start, and advance through all blocks, each filled for it; yield each one's number before it is passed.

        Meanwhile this process reports that it does `what`.
        """
        self.start()
        for index, block in self.streamed.filled_blocks(range(len(self.streamed)), what, self.dtype):
            yield index
            self.advance_unwatched(block, index)

    def pass_blocks(self, what: str) -> None:
        """Start, and advance through all blocks, each filled for it."""
        for _ in self.through_blocks(what):
            pass

    def with_same_tokens(self, name: str) -> "Stream":
        """Return a new stream of the same tokens; it has no hidden states yet, and is never resumed."""
        return Stream(
            name,
            torch.cat(self.tokens),
            self.streamed,
            self._store,
            self._budget,
            dtype=self.dtype,
            micro_batch=self._micro_batch,
            resumable=False,
        )

    def close(self) -> None:
        """Free the memory, and remove the files from which nothing is resumed."""
        self._states.close()

    def batches(self) -> Iterator[tuple[int, Tensor]]:
        for index in range(len(self)):
            yield index, self.hidden(index)

    def equals(self, other: "Stream") -> bool:
        """Return True while the hidden states are those of another stream of the same tokens."""
        both = zip(self.batches(), other.batches(), strict=True)
        return all(torch.equal(one, another) for (_, one), (_, another) in both)


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
