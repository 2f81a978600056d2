"""`secateur run`: the file of an artifact goes on from texts and chats in its engine, as transformers does."""

import io
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from secateur.cli import main
from secateur.engines import choice
from secateur.engines.choice import choose
from secateur.engines.graph import ChatTemplate
from secateur.errors import RunError
from secateur_wire.shown_commands import python_text
from tests.gguf.trained import save_trained
from tests.graphs.cells import FORMS, export

_TEMPLATE = (
    "{%- for message in messages %}\n{{ bos_token }}{{ message.role }}: {{ message.content | tojson }}{{ '\\n' }}"
    "{%- endfor %}\n{%- if add_generation_prompt %}assistant:{% endif %}"
)
_CONVERSATION = [{"role": "user", "content": "the 'quick' <b> café"}, {"role": "assistant", "content": "brown"}]


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = save_trained(tmp_path_factory.mktemp("graphs") / "model")
    export(folder, "onnx")
    return folder


def _greedy(folder: Path, prompt: str, tokens: int) -> str:
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    given = tokenizer(prompt, return_tensors="pt", return_token_type_ids=False)
    with torch.inference_mode():
        ids = model.generate(**given, max_new_tokens=tokens, do_sample=False)
    return str(tokenizer.decode(ids[0][given["input_ids"].shape[1] :], skip_special_tokens=True))


def test_a_graph_goes_on_and_chats_as_transformers_does(
    exported: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = exported
    kind, file = choose(folder)
    assert (kind.name, file.name) == ("ONNX Runtime", "onnx-F32.onnx")
    assert "".join(kind.open(file).go_on("the quick", 12)) == _greedy(folder, "the quick", 12)
    example = FORMS["onnx"].example
    assert example is not None
    exec(compile(example.script.format(file=python_text(str(file)), prompt="the quick"), example.runtime, "exec"), {})
    assert capsys.readouterr().out.startswith("the quick" + _greedy(folder, "the quick", 3))
    (folder / "chat_template.jinja").write_text("{{ messages[-1].content }}!")
    monkeypatch.setattr(sys, "argv", ["secateur", "run", str(folder), "--tokens", "8"])
    monkeypatch.setattr(sys, "stdin", io.StringIO("the quick\nFox\n"))
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 0
    answers = "".join(f"{_greedy(folder, f'{line}!', 8)}\n" for line in ("the quick", "Fox"))
    assert capsys.readouterr().out == answers


def test_a_conversation_loses_its_oldest_turns_and_a_failing_engine_is_one_sentence(
    exported: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = exported

    def chat(template: str, *lines: str) -> tuple[object, str, str]:
        (folder / "chat_template.jinja").write_text(template)
        monkeypatch.setattr(sys, "argv", ["secateur", "run", str(folder), "--tokens", "8"])
        monkeypatch.setattr(sys, "stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code, *capsys.readouterr()

    code, out, err = chat(_TEMPLATE, *["the quick brown fox"] * 12)
    assert code == 0 and len(out) > 0 and "exceeds the context of 128 tokens: its oldest turns are forgotten" in err
    code, out, err = chat(_TEMPLATE, "the quick brown fox " * 60)
    assert (code, out) == (1, "") and "the file's context is 128. Write less" in err
    code, out, err = chat("{{ messages[0].content + 1 }}", "the quick")
    assert (code, out) == (1, "") and "Traceback" not in err
    assert err.splitlines()[-1].startswith("secateur: onnx-F32.onnx failed in ONNX Runtime: can only concatenate str")


@pytest.mark.parametrize("kind", choice.KINDS, ids=lambda kind: kind.id)
def test_a_broken_file_is_refused_with_its_engine_s_reason(kind: choice.EngineKind, tmp_path: Path) -> None:
    save_trained(tmp_path / "model", training_steps=0)
    file = tmp_path / "model" / f"broken{kind.suffix}"
    file.write_bytes(b"cut off")
    with pytest.raises(RunError, match=rf"broken{kind.suffix} does not open in {kind.name}: .+\. `secateur verify`"):
        kind.open(file)


def test_a_chat_template_gives_what_it_gives_in_transformers(tmp_path: Path) -> None:
    folder = save_trained(tmp_path / "model", training_steps=0)
    assert ChatTemplate.of(folder) is None
    (folder / "chat_template.jinja").write_text(_TEMPLATE)
    template = ChatTemplate.of(folder)
    assert template is not None
    expected = AutoTokenizer.from_pretrained(folder).apply_chat_template(
        _CONVERSATION, tokenize=False, add_generation_prompt=True
    )
    assert template.render(_CONVERSATION) == expected
    (folder / "chat_template.jinja").write_text("{{ raise_exception('roles must alternate') }}")
    refusing = ChatTemplate.of(folder)
    assert refusing is not None
    with pytest.raises(RunError, match="roles must alternate"):
        refusing.render(_CONVERSATION)


def test_what_cannot_be_run_is_said_with_what_would_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RunError, match="is not there"):
        choose(tmp_path / "nowhere")
    with pytest.raises(RunError, match=r"no file that an engine runs .*--export gguf:Q8_0"):
        choose(tmp_path)
    (tmp_path / "openvino-INT8.xml").write_text("")
    (tmp_path / "model-Q8_0.gguf").write_text("larger")
    with pytest.raises(RunError, match="no file for onnx"):
        choose(tmp_path, "onnx")
    assert choose(tmp_path)[1].name == "model-Q8_0.gguf" and choose(tmp_path, "openvino")[0].name == "OpenVINO"
    with pytest.raises(RunError, match="`secateur download - DIR` fetches its artifact"):
        choose(Path("-"))
    for name, graph, weights in (("F32", 200, 4000), ("INT8", 300, 1000)):
        (tmp_path / f"openvino-{name}.xml").write_bytes(b" " * graph)
        (tmp_path / f"openvino-{name}.bin").write_bytes(b" " * weights)
    assert choose(tmp_path, "openvino")[1].name == "openvino-INT8.xml", "weights count"
    monkeypatch.setattr(choice, "find_spec", lambda name: None if name in ("llama_cpp_py_sync", "openvino") else name)
    with pytest.raises(RunError, match="pip install llama-cpp-py-sync or pip install openvino"):
        choose(tmp_path)
