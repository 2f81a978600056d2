"""SmolLM2-135M-Instruct's own chat template, as transformers renders it."""

from pathlib import Path

from transformers import AutoTokenizer

from core.engine.datasets.chat.conversations import Conversation
from core.engine.datasets.chat.template import TemplateRenderer, read_template
from tests.chat import conversation


def test_conversations_are_rendered_as_transformers_does_and_the_answers_are_found(samples: Path) -> None:
    folder = samples / "models/smollm2-135m"
    template = read_template(folder)
    assert template is not None and template.special_tokens["eos_token"] == "<|im_end|>"
    renderer, tokenizer = TemplateRenderer(template), AutoTokenizer.from_pretrained(folder)
    for turns in (
        conversation("Who wrote Faust?", "Goethe did.", "Where?", "In Weimar, mostly.")["messages"],
        conversation("Wer schrieb „Faust“?", "Göthe.", system="Answer in one word.")["messages"],
    ):
        rendered = renderer.render(Conversation(1, turns))
        assert rendered.text == tokenizer.apply_chat_template(turns, tokenize=False)
        said = [rendered.text[start:end] for start, end in rendered.spans or ()]
        assert said == [f"{turn['content']}<|im_end|>" for turn in turns if turn["role"] == "assistant"]
    frame = renderer.frame()
    assert frame.opening.endswith("<|im_start|>user\n") and frame.closing == "<|im_end|>\n"
    assert frame.between == "<|im_end|>\n<|im_start|>assistant\n"
