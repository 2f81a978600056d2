"""Text that the model writes itself among the calibration sequences, by the budget of a job."""

from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

Budget: TypeAlias = Literal["quick", "thorough"]


@dataclass(frozen=True)
class OwnText:
    """A `share` of the calibration sequences, replacing them where `replaces`, else in addition, at most `most`."""

    share: float
    replaces: bool
    most: int

    def split(self, samples: int | None) -> tuple[int | None, int]:
        """Return how many sequences are of the text and how many are generated, as `split_calibration` does."""
        if samples is None:
            return None, self.most
        generated = min(int(self.share * samples), self.most)
        return (samples - generated if self.replaces else samples), generated


OWN_TEXT: Final[dict[Budget, OwnText]] = {
    "quick": OwnText(share=0.25, replaces=True, most=64),
    "thorough": OwnText(share=3, replaces=False, most=96),
}
