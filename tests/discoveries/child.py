"""Stand-in of the child that looks at an architecture, run as the real one is: `python child.py WHAT`.

It takes what it is told for a Llama under other names, which is what it is.
"""

import json
import os
import signal
import socket
import sys
import time
from dataclasses import replace

from core.engine.architectures.declared import LANGUAGE_ARCHITECTURES
from core.engine.architectures.description import DISCOVERY_VERSION, architectures


def found(question: dict[str, object]) -> dict[str, object]:
    config = question["config"]
    assert isinstance(config, dict)
    llama = LANGUAGE_ARCHITECTURES["LlamaForCausalLM"]
    architecture = replace(
        llama,
        model_type=config["model_type"],
        architecture=config["architectures"][0],
        title="Alien",
        discovered_by=f"{DISCOVERY_VERSION}/0",
    )
    return {"architecture": architectures.dump_python(architecture, mode="json")}


def reached(port: int) -> str:
    try:
        with socket.create_connection(("127.0.0.1", port), 5):
            return "reached"
    except OSError as error:
        return str(error.strerror)


def main(what: str, *arguments: str) -> None:
    question = json.load(sys.stdin)
    match what:
        case "finds":
            answer = found(question)
        case "refuses":
            answer = {"error": {"code": "unsupported_architecture", "message": "it has no blocks that run in order"}}
        case "tells":
            seen = {
                "network": reached(int(arguments[0])),
                "environment": sorted(os.environ),
                "home": os.environ["HOME"],
            }
            answer = {"error": {"code": "told", "message": json.dumps(seen)}}
        case "dies":
            os.kill(os.getpid(), signal.SIGSEGV)
        case "hangs":
            time.sleep(600)
        case "eats":
            answer = {"error": {"code": "ate", "message": str(len(bytearray(2**34)))}}
        case "babbles":
            print("a llama, I think")
            return
    print(json.dumps(answer))


main(*sys.argv[1:])
