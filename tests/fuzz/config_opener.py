"""Opens model folders that try to have code chosen, and tells what the process did meanwhile that it must not do.

`python -m tests.fuzz.config_opener COUNT PLACE` prints one JSON object a case: its number, how it ended, and what was
done: connections, imports of modules that opening a sound folder does not import, files opened outside the folder,
processes, unpickled classes, and kernels asked for.
"""

import ctypes
import json
import os
import shutil
import struct
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers.integrations import hub_kernels
from transformers.models.auto.tokenization_auto import tokenizer_class_from_name
from transformers.tokenization_utils_base import import_protobuf_decode_error

from core.engine.checkpoints.code_choices import TOKENIZER_CLASSES
from core.engine.datasets.preprocessing import read_preprocessing
from core.engine.models.classifier import load_classifier, open_classifier
from core.engine.models.folder import open_model
from core.engine.models.loading import load_model
from secateur_wire.errors import SecateurError
from tests.engine.classifier_folders import make_classifier
from tests.engine.tiny import make_model
from tests.fuzz.config_cases import write_bait, write_case

_CPU = torch.device("cpu")
FORBIDDEN = {
    *("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"),
    *("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "pickle.find_class"),
}
_IN_OPEN = 0x20


class Watch:
    """Records what is done while it is on; what a sound folder has done is allowed from then on."""

    def __init__(self, bait: Path) -> None:
        self.is_on = False
        self.folder = ""
        self.done: list[str] = []
        self.allowed: set[str] = set()
        self._here = Path.cwd()
        self._roots = tuple(f"{Path(place).resolve()}/" for place in (sys.prefix, sys.base_prefix, self._here))
        self._notified = _notify_of_opens(bait)
        sys.addaudithook(self._hear)

    def note(self, what: str) -> None:
        if self.is_on and what not in self.allowed:
            self.done.append(what)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.is_on:
            return
        if event in FORBIDDEN:
            self.note(f"{event} {str(arguments[1:3])[:200]}")
            raise RuntimeError(f"{event} is not allowed here")  # no OSError: those are tried again
        if event == "import":
            self.note(f"import {arguments[0]}")
        elif event == "open" and isinstance(arguments[0], str | bytes):
            path = os.path.normpath(self._here / os.fsdecode(arguments[0]))
            if not path.startswith((self.folder, *self._roots)):
                self.note(f"open {path}")

    def during(self, folder: Path, work: Callable[[], None]) -> tuple[str, list[str]]:
        """Return how `work` ended, and what it did."""
        self._natively_opened()
        self.folder, self.done, self.is_on = f"{folder.resolve()}/", [], True
        try:
            work()
            how = "ok"
        except SecateurError as error:
            how = f"refused {error.code}: {error.message[:300]}"
        except Exception as error:
            how = f"failed {type(error).__name__}: {str(error)[:100]}"
        finally:
            self.is_on = False
        return how, self.done + [f"opened natively: {name}" for name in self._natively_opened()]

    def _natively_opened(self) -> set[str]:
        """Names of the bait's files that were opened, by whatever library, since this was last asked."""
        names: set[str] = set()
        try:
            events = os.read(self._notified, 2**16)
        except BlockingIOError:
            return names
        while events:
            length = struct.unpack("iIII", events[:16])[3]
            names.add(events[16 : 16 + length].rstrip(b"\0").decode())
            events = events[16 + length :]
        return names - {""}


def _notify_of_opens(folder: Path) -> int:
    """A descriptor that tells of every open in a folder, by libraries that are not Python's too."""
    library = ctypes.CDLL(None, use_errno=True)
    descriptor: int = library.inotify_init1(os.O_NONBLOCK)
    assert descriptor >= 0 and library.inotify_add_watch(descriptor, str(folder).encode(), _IN_OPEN) >= 0
    return descriptor


def open_folder(folder: Path, watch: Watch) -> None:
    """Open all that jobs open: config, weights, tokenizer, and what is done to images."""
    if json.loads((folder / "config.json").read_bytes()).get("model_type") == "timm_wrapper":
        classifier = open_classifier(folder)
        model = load_classifier(classifier)
        read_preprocessing(folder, classifier.raw_config, classifier.description.image)
    else:
        opened = open_model(folder)
        model = load_model(opened, _CPU)
        opened.tokenizer()("some words")
    if (used := model.config._attn_implementation) not in ("sdpa", "eager"):
        watch.note(f"attention {used}")


def make_bases(place: Path) -> dict[str, Path]:
    """Sound folders, with every file that is read of them."""
    words = Tokenizer(models.WordLevel({"<s>": 0, "</s>": 1, "some": 2, "words": 3}, unk_token="<s>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    llama = make_model(place / "llama")
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<s>", eos_token="</s>")
    tokenizer.chat_template = "{% for message in messages %}{{ message.content }}{% endfor %}"
    tokenizer.save_pretrained(llama)
    (llama / "special_tokens_map.json").write_text(json.dumps({"bos_token": "<s>", "eos_token": "</s>"}))
    gpt2 = make_model(place / "gpt2", "gpt2")
    (gpt2 / "vocab.json").write_text(json.dumps({letter: number for number, letter in enumerate([*"someĠwrd", "so"])}))
    (gpt2 / "merges.txt").write_text("#version: 0.2\ns o\n")
    (gpt2 / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "GPT2Tokenizer"}))
    timm = make_classifier(place / "timm-resnet", "timm-resnet")
    (timm / "preprocessor_config.json").write_text(json.dumps({"do_resize": True, "size": 32}))
    return {folder.name: folder for folder in (llama, gpt2, timm)}


def main(count: int, place: Path, tell: Callable[[dict[str, Any]], None]) -> None:
    bait = place / "bait"
    write_bait(bait)
    bases = make_bases(place / "bases")
    watch = Watch(bait)

    def asked_for_kernel(name: str, *_: object, **__: object) -> None:
        watch.note(f"kernel {name}")
        raise ImportError("no kernels here")

    for door in ("get_kernel", "load_and_register_attn_kernel"):
        setattr(hub_kernels, door, asked_for_kernel)
    import_protobuf_decode_error()  # what transformers imports when any tokenizer fails to open
    for name in sorted(TOKENIZER_CLASSES):
        tokenizer_class_from_name(name)
    for base in bases.values():
        for _ in range(2):
            how, done = watch.during(base, partial(open_folder, base, watch))
            assert how == "ok", how
            watch.allowed.update(done)

    names = sorted(bases)
    for number in range(count):
        folder = place / f"case-{number}"
        write_case(number, bases[names[number % len(names)]], folder, bait)
        how, done = watch.during(folder, partial(open_folder, folder, watch))
        tell({"case": number, "how": how, "done": done})
        shutil.rmtree(folder)


if __name__ == "__main__":
    answers = sys.stdout
    with redirect_stdout(sys.stderr):  # libraries print at times
        main(int(sys.argv[1]), Path(sys.argv[2]), lambda told: print(json.dumps(told), file=answers, flush=True))
