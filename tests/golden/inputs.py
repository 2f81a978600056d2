"""Models, a text and images for the jobs, made once; both revisions read the same files."""

from pathlib import Path

import numpy as np
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from tests import families
from tests.engine.classifier_folders import image_shape, make_classifier
from tests.engine.tiny import make_model
from tests.families import DEEP, ROWS
from tests.image_sets import encoded

MODELS = sorted({golden.model for row in ROWS for golden in row.golden.values()})
CLASSIFIERS = [name for name in MODELS if name in families.CLASSIFIERS]
_IMAGES = 60


def write_inputs(folder: Path) -> Path:
    """Return `folder` with `models/NAME`, `text.txt` and `images/NAME/CLASS/*.png`, written unless all are there."""
    done = folder / "done"
    if not done.exists():
        for name in MODELS:
            if name == DEEP:
                _tokenizer().save_pretrained(make_model(folder / "models" / DEEP, "llama", num_hidden_layers=16))
            elif name not in CLASSIFIERS:
                _tokenizer().save_pretrained(make_model(folder / "models" / name, name))
        generator = np.random.default_rng(0)
        passages = (" ".join(f"w{word}" for word in generator.integers(4, 96, 50)) for _ in range(60))
        (folder / "text.txt").write_text("\n\n".join(passages))
        for name in CLASSIFIERS:
            make_classifier(folder / "models" / name, name)
            channels, height, width = image_shape(name)
            for number in range(_IMAGES):
                label = number % 5
                pixels = generator.integers(0, 256, (height, width, channels)) // 2 + 25 * label
                file = folder / "images" / name / f"class-{label}" / f"{number:03d}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(encoded(pixels.astype(np.uint8).squeeze()))
        done.touch()
    return folder


def _tokenizer() -> PreTrainedTokenizerFast:
    """Return a tokenizer whose words are w0 to w95."""
    words = Tokenizer(models.WordLevel({f"w{number}": number for number in range(96)}, unk_token="w3"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=words)
