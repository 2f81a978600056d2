"""Ids that a config names at any depth, and what becomes of them."""

from typing import Any

import pytest

from core.engine.removals.vocabulary.tokenizers.config_ids import config_ids, renumbered
from secateur_wire.errors import InvalidRequest

CONFIG: dict[str, Any] = {
    "vocab_size": 100, "bos_token_id": 3, "eos_token_id": [5, 7], "pad_token_id": None, "sep_token_id": -1,
    "hidden_size": 9, "image_token_index": 11, "ignore_index": -100, "suppress_tokens": [13, 15],
    "begin_suppress_tokens": [17], "bad_words_ids": [[19, 21], [23]], "forced_decoder_ids": [[1, 25], [2, None]],
    "sequence_bias": [[[27, 29], -1.0]], "lang_to_id": {"<|en|>": 31},
    "text_config": {"vocab_size": 100, "video_token_id": 33, "rope_parameters": {"factor": 8}},
    "audio_config": {"vocab_size": 64, "bos_token_id": 2, "pad_token_id": 63},
    "vision_config": {"image_size": 96, "num_image_tokens": 4, "codebook_eos_token_id": 8},
    "architectures": ["A"],
}  # fmt: skip
NAMED = {3, 5, 7, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31, 33}


def test_every_id_is_found_and_no_other_number() -> None:
    assert config_ids(CONFIG, 100) == NAMED
    assert config_ids({"eos_token_id": 128001, "bos_token_id": True, "pad_token_id": 1.0}, 100) == set()


def test_ids_and_sizes_change_together_and_nothing_else() -> None:
    kept = sorted({0, 50, *NAMED})
    changed = renumbered(CONFIG, kept, size=100)
    place = kept.index
    assert changed == CONFIG | {
        "vocab_size": len(kept),
        "bos_token_id": place(3),
        "eos_token_id": [place(5), place(7)],
        "image_token_index": place(11),
        "suppress_tokens": [place(13), place(15)],
        "begin_suppress_tokens": [place(17)],
        "bad_words_ids": [[place(19), place(21)], [place(23)]],
        "forced_decoder_ids": [[1, place(25)], [2, None]],
        "sequence_bias": [[[place(27), place(29)], -1.0]],
        "lang_to_id": {"<|en|>": place(31)},
        "text_config": {"vocab_size": len(kept), "video_token_id": place(33), "rope_parameters": {"factor": 8}},
    }
    assert renumbered(CONFIG, range(100), size=100) == CONFIG


def test_an_id_that_is_not_kept_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="no kept token of the id 33"):
        renumbered(CONFIG, sorted(NAMED - {33}), size=100)
