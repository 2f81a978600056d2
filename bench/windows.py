"""Windows of tokens that all contenders are given, written once for each choice of text, size and seed."""

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path

from bench.cells import CACHE, own_program, run

FILE = "tokens.safetensors"


@dataclass(frozen=True)
class Windows:
    """`samples` windows of `length` tokens of a JSONL, Parquet or plain text, as the model's tokenizer cuts it.

    `use` is `calibration`, drawn by the seed, or `evaluation`, evenly spaced whatever the seed.
    """

    model: Path
    text: Path
    use: str
    samples: int
    length: int
    seed: int = 0

    @property
    def file(self) -> Path:
        """Where they are or will be: safetensors, `tokens` [samples, length]."""
        facts = [self.use, str(self.samples), str(self.length), str(self.seed)]
        for path in [*sorted(self.model.glob("tokenizer*")), self.text]:
            facts.append(hashlib.sha256(path.read_bytes()).hexdigest())
        return (CACHE / "tokens" / hashlib.sha256("\n".join(facts).encode()).hexdigest()[:20]).absolute() / FILE

    def written(self, threads: int) -> Path:
        """The file, once it is there; raises CellFailed."""
        file = self.file
        if not file.exists():
            partial = file.parent.with_suffix(".partial")
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir(parents=True)
            spec = {name: getattr(self, name) for name in ("use", "samples", "length", "seed")}
            spec |= {"model": str(self.model), "text": str(self.text), "threads": threads}
            run(own_program("bench.tokens_cell"), spec | {"output": str(partial / FILE)}, "tokens")
            partial.rename(file.parent)
        return file
