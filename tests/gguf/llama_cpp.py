"""llama.cpp's own tokenizer, in a process of its own: `python -m tests.gguf.llama_cpp FILES`, texts on stdin."""

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path


def llama_cpp_ids(files: Sequence[Path], texts: Sequence[str]) -> list[list[list[int]]]:
    """Return each file's ids of each text, special tokens read as such, BOS and EOS put where the file wants them."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.gguf.llama_cpp", *map(str, files)],
        input=json.dumps(list(texts)),
        capture_output=True,
        text=True,
        errors="backslashreplace",  # what it logs of a vocabulary are bytes, not always whole characters
        timeout=120,
        cwd=Path(__file__).parents[2],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    ids: list[list[list[int]]] = json.loads(done.stdout)
    return ids


def main(files: Sequence[str]) -> None:
    from llama_cpp_py_sync._cffi_bindings import get_ffi, get_lib

    ffi, lib = get_ffi(), get_lib()
    lib.llama_backend_init()
    parameters = lib.llama_model_default_params()
    parameters.vocab_only = True
    texts = [text.encode() for text in json.load(sys.stdin)]
    ids = []
    for file in files:
        model = lib.llama_model_load_from_file(file.encode(), parameters)
        if model == ffi.NULL:
            sys.exit(f"llama.cpp does not load {file}")
        vocabulary = lib.llama_model_get_vocab(model)
        ids.append([])
        for text in texts:
            room = len(text) + 16
            tokens = ffi.new(f"llama_token[{room}]")
            count = lib.llama_tokenize(vocabulary, text, len(text), tokens, room, True, True)
            assert count >= 0
            ids[-1].append([tokens[place] for place in range(count)])
        lib.llama_model_free(model)
    json.dump(ids, sys.stdout)


if __name__ == "__main__":
    main(sys.argv[1:])
