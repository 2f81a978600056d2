import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from core.engine.architectures.declared import LANGUAGE_ARCHITECTURES
from core.engine.architectures.heterogeneous import per_layer_config
from core.settings import Settings
from tests.model_folders import write_llama, write_text


def register(api: TestClient, folder: Path, name: str = "tiny") -> tuple[int, dict[str, object]]:
    response = api.post("/v1/models", json={"name": name, "path": str(folder.absolute())})
    return response.status_code, response.json()


def test_a_name_keeps_its_meaning(api: TestClient, settings: Settings) -> None:
    first = write_llama(settings.models_root / "first")
    other = write_llama(settings.models_root / "other", seed=1)
    assert register(api, first)[0] == 201
    assert register(api, first)[0] == 200
    status, problem = register(api, other)
    assert (status, problem["code"], problem["param"]) == (409, "conflict", "name")


def test_paths_stay_in_the_folders_the_operator_allows(api: TestClient, settings: Settings, tmp_path: Path) -> None:
    outside = write_llama(tmp_path / "outside")
    settings.models_root.mkdir(parents=True)
    (settings.models_root / "link").symlink_to(outside)
    for path in (outside, settings.models_root / ".." / ".." / "outside", settings.models_root / "link"):
        response = api.post("/v1/models", json={"name": "tiny", "path": str(path)})
        assert (response.status_code, response.json()["code"]) == (422, "path_escapes"), path
    secret = write_text(settings.home / "api-key")
    response = api.post("/v1/datasets", json={"name": "a", "path": str(secret), "format": "text"})
    assert response.json()["code"] == "path_escapes"
    relative = api.post("/v1/models", json={"name": "tiny", "path": "models/tiny"})
    assert (relative.status_code, relative.json()["param"]) == (422, "path")


def test_a_link_out_of_the_model_folder_is_refused(api: TestClient, settings: Settings, tmp_path: Path) -> None:
    folder = write_llama(settings.models_root / "tiny")
    (folder / "tokenizer.json").symlink_to(write_text(tmp_path / "private.txt"))
    status, problem = register(api, folder)
    assert (status, problem["code"]) == (422, "path_escapes")


def test_unusable_models_say_why(api: TestClient, settings: Settings) -> None:
    good = write_llama(settings.models_root / "good")

    def broken(name: str) -> Path:
        return Path(shutil.copytree(good, settings.models_root / name))

    def config(name: str, **change: object) -> Path:
        folder = broken(name)
        file = folder / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | change))
        return folder

    truncated = broken("truncated")
    weights = truncated / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    pickled = broken("pickled")
    (pickled / "model.safetensors").rename(pickled / "pytorch_model.bin")
    cases = {
        "corrupt_safetensors": truncated,
        "pickle_checkpoint": pickled,
        "unsafe_config": config("unsafe", auto_map={"AutoModel": "x.Y"}),
        "unsupported_architecture": config("nameless", architectures=[]),
        "missing_tensors": config("missing", num_hidden_layers=3),
        "unusable_model": settings.models_root / "nothing",
    }
    for code, folder in cases.items():
        status, problem = register(api, folder, folder.name)
        assert (status, problem["code"], problem["param"]) == (422, code, "path"), problem
    kernel = config("kernel", attn_implementation="kernels-community/flash-attn")
    tokenizer = broken("tokenizer")
    (tokenizer / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "Trainer"}))
    for folder, words in (
        (kernel, "config.json holds 'attn_implementation', which selects code to run"),
        (tokenizer, "tokenizer_config.json holds 'tokenizer_class', and 'Trainer' is not a tokenizer"),
    ):
        status, problem = register(api, folder, folder.name)
        assert (status, problem["code"], problem["param"]) == (422, "unsafe_config", "path"), problem
        assert words in str(problem["detail"])
    ours = json.loads((good / "config.json").read_text())
    differing = per_layer_config(ours, LANGUAGE_ARCHITECTURES["LlamaForCausalLM"], [{}, {"intermediate_size": 8}])
    status, problem = register(api, config("copied-artifact", **differing))
    assert (status, problem["code"]) == (422, "unsafe_config") and "name it job:ID" in str(problem["detail"])


def test_a_text_is_registered_in_each_format(api: TestClient, settings: Settings) -> None:
    root = settings.datasets_root
    write_text(root / "a.txt")
    (root / "b.jsonl").write_text('{"body": "one"}\n{"body": "two"}\n')
    plain = api.post("/v1/datasets", json={"name": "a", "path": str((root / "a.txt").absolute())})
    assert (plain.status_code, plain.json()["format"], plain.json()["documents"]) == (201, "text", 200)
    lines = {"name": "b", "path": str((root / "b.jsonl").absolute()), "text_field": "body"}
    registered = api.post("/v1/datasets", json=lines)
    assert (registered.status_code, registered.json()["documents"]) == (201, 2)
    assert api.post("/v1/datasets", json=lines).status_code == 200
    wrong = api.post("/v1/datasets", json=lines | {"name": "c", "text_field": "text"})
    assert (wrong.status_code, wrong.json()["code"]) == (422, "unusable_dataset")
    taken = api.post("/v1/datasets", json=lines | {"name": "a"})
    assert (taken.status_code, taken.json()["code"]) == (409, "conflict")
    assert {each["name"] for each in api.get("/v1/datasets").json()["data"]} == {"a", "b"}
    assert api.get("/v1/datasets/a").json() == plain.json()


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("datasets", {"vocabulary": {"datasets": ["spare"]}}),
        ("models", {"method": "recover", "sparsity": None, "recovery": {"method": "distill", "teacher": "spare"}}),
    ],
)
def test_a_job_that_is_not_over_keeps_all_that_it_reads(
    api: TestClient, settings: Settings, job_body: dict[str, Any], kind: str, change: dict[str, Any]
) -> None:
    if kind == "models":
        place = write_llama(settings.models_root / "spare", seed=1)
    else:
        place = write_text(settings.datasets_root / "spare.txt")
    api.post(f"/v1/{kind}", json={"name": "spare", "path": str(place.resolve())}).raise_for_status()
    job = api.post("/v1/jobs", json=job_body | change)
    assert job.status_code == 201, job.text
    refused = api.delete(f"/v1/{kind}/spare")
    assert refused.status_code == 409 and job.json()["id"] in refused.json()["detail"]
    api.post(f"/v1/jobs/{job.json()['id']}/cancel").raise_for_status()
    assert api.delete(f"/v1/{kind}/spare").status_code == 204
