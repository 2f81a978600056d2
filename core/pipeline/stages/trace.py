"""Entry point of the child process that traces an image classifier, from its config and its tensors' shapes."""

import json
import sys
from contextlib import redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory

from core.engine.architectures.declared import CLASSIFIER_ARCHITECTURES
from core.engine.architectures.describe import describe_classifier
from core.engine.architectures.description import TraceAnswer, TraceQuestion
from core.engine.architectures.folder import by_name
from core.engine.checkpoints.files import CONFIG_FILE
from core.engine.checkpoints.safetensors_header import TensorEntry, dtype_bytes


def answer(question: TraceQuestion) -> TraceAnswer:
    """Return the facts of a classifier's passes, or the reason why they are not known."""
    try:
        from core.engine.models.classifier import ClassifierFolder
        from core.engine.pruning.classifier_trace import trace_classifier

        config = question.config
        family = next(
            CLASSIFIER_ARCHITECTURES[each] for each in config["architectures"] if each in CLASSIFIER_ARCHITECTURES
        )
        stored = {
            name: TensorEntry(name, dtype, shape, Path(), 0, dtype_bytes(dtype, shape))
            for name, (dtype, shape) in question.tensors.items()
        }
        tensors = by_name(stored, family)
        with TemporaryDirectory() as temporary:
            folder = Path(temporary)
            (folder / CONFIG_FILE).write_text(json.dumps(config))
            opened = ClassifierFolder(folder, describe_classifier(config, family, tensors), family, config, tensors)
            return TraceAnswer(passes=trace_classifier(opened, question.image_shape))
    except Exception as error:  # the code of any type of model may fail in any way
        return TraceAnswer(error=f"{type(error).__name__}: {str(error)[:300]}")


def main() -> None:
    """Answer the question on standard input; what libraries print goes to standard error."""
    with redirect_stdout(sys.stderr):
        answered = answer(TraceQuestion.model_validate_json(sys.stdin.read()))
    sys.stdout.write(answered.model_dump_json())


if __name__ == "__main__":
    main()
