"""Windows of tokens that all contenders are given, written once for each choice of text, size and seed."""

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path

from bench.cells import CACHE, engine_program, recall, remember, run

FILE = "tokens.safetensors"
SELF_WINDOWS = 96
"""As many as any setting asks for."""


@dataclass(frozen=True)
class SelfText:
    """Text that a model writes itself, enough for SELF_WINDOWS of `length` tokens; cells draw of them by their seed."""

    model: Path
    length: int

    def written(self, threads: int) -> tuple[Path, float]:
        """The file as JSON lines, once it is there, and the seconds it took; raises CellFailed."""
        facts = f"{model_hash(self.model)} {SELF_WINDOWS} {self.length}"
        key = hashlib.sha256(facts.encode()).hexdigest()[:20]
        file = (CACHE / "self-text" / f"{key}.jsonl").absolute()
        known = recall(f"self-text-{key}")
        if known is None or not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            partial = file.with_suffix(".partial")
            spec = {"model": str(self.model), "samples": SELF_WINDOWS, "length": self.length, "threads": threads}
            known = run(
                engine_program("bench.tokens_cell:write_text"), spec | {"output": str(partial)}, "self-text"
            ).result
            partial.rename(file)
            remember(f"self-text-{key}", known)
        return file, float(known["seconds"])


def model_hash(model: Path) -> str:
    """Of a model folder's weights and files of JSON."""
    digest = hashlib.sha256()
    for file in sorted(file for kind in ("safetensors", "json") for file in model.glob(f"*.{kind}")):
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()


@dataclass(frozen=True)
class Windows:
    """`samples` windows of `length` tokens of a JSONL, Parquet or plain text, as the model's tokenizer cuts it.

    `use` is `calibration`, drawn by the seed, or `evaluation`, evenly spaced whatever the seed. `generated` further
    ones, mixed among those, are of text the model writes itself.
    """

    model: Path
    text: Path
    use: str
    samples: int
    length: int
    seed: int = 0
    generated: int = 0

    @property
    def file(self) -> Path:
        """Where they are or will be: safetensors, `tokens` [samples, length]."""
        facts = [self.use, str(self.samples), str(self.length), str(self.seed)]
        if self.generated:
            facts.append(f"generated {self.generated} of {SELF_WINDOWS} {model_hash(self.model)}")
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
            spec = {name: getattr(self, name) for name in ("use", "samples", "length", "seed", "generated")}
            spec |= {"model": str(self.model), "text": str(self.text), "threads": threads}
            if self.generated:
                spec["generated_text"] = str(SelfText(self.model, self.length).written(threads)[0])
            run(engine_program("bench.tokens_cell:make_windows"), spec | {"output": str(partial / FILE)}, "tokens")
            partial.rename(file.parent)
        return file
