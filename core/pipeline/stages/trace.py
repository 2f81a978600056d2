"""Entry point of the child process that traces a model, from its config and the shapes of its tensors.

It traces the passes over images of an image classifier, and the pass of one job over a language model.
"""

import json
import sys
from contextlib import redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory

from pydantic import TypeAdapter

from core.engine.architectures.classifier_architecture import describe_classifier
from core.engine.architectures.classifier_passes import TraceAnswer, TraceQuestion
from core.engine.architectures.description import by_name
from core.engine.architectures.registry import CLASSIFIER_ARCHITECTURES
from core.engine.checkpoints.files import CONFIG_FILE
from core.engine.checkpoints.safetensors_header import TensorEntry, dtype_bytes
from core.pipeline.messages import PassAnswer, PassQuestion


def answer(question: TraceQuestion | PassQuestion) -> TraceAnswer | PassAnswer:
    """Return the facts of a classifier's passes, or the bytes of a language model's pass, or why they are not known."""
    if isinstance(question, PassQuestion):
        try:
            from core.pipeline.pass_trace import trace_pass

            return PassAnswer(peak_bytes=trace_pass(question))
        except Exception as error:  # the code of any type of model may fail in any way
            return PassAnswer(error=f"{type(error).__name__}: {str(error)[:300]}")
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
        question: TypeAdapter[TraceQuestion | PassQuestion] = TypeAdapter(TraceQuestion | PassQuestion)
        answered = answer(question.validate_json(sys.stdin.read()))
    sys.stdout.write(answered.model_dump_json())


if __name__ == "__main__":
    main()
