"""Share of calibration sequences that the model generates itself, by the budget of a job."""

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

Budget: TypeAlias = Literal["quick", "thorough"]


@dataclass(frozen=True)
class OwnText:
    """Generated sequences: a `share` of the calibration sequences, at most `most`.

    They replace other sequences where `replaces` is set; otherwise they are added.
    """

    share: float
    replaces: bool
    most: int

    def split(self, samples: int | None) -> tuple[int | None, int]:
        """Return the numbers of sequences from the text and of generated sequences, as `split_calibration` does."""
        if samples is None:
            return None, self.most
        generated = min(int(self.share * samples), self.most)
        return (samples - generated if self.replaces else samples), generated


OWN_TEXT: Final[dict[Budget, OwnText]] = {
    "quick": OwnText(share=0.25, replaces=True, most=64),
    "thorough": OwnText(share=3, replaces=False, most=96),
}
