"""Verification of artifacts: what is exactly as it was signed passes, and nothing else."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from core.pipeline.reports.manifest import finalise
from core.pipeline.reports.report import Report
from core.settings import Settings
from core.signing import new_private_key, public_key, public_keys, read_signer
from secateur import errors
from secateur.verification import verify_artifact, verify_file
from secateur_wire.provenance import PROVENANCE
from tests.client.command_line import RunHere
from tests.recipes import recipe_of

REPORT = {
    "job": "job_1",
    "attempt": 2,
    "model": {"name": "oak", "revision": "sha256:" + "a" * 64},
    "texts": {"calibration": {"name": "leaves", "sha256": "b" * 64}, "evaluation": {}},
    "recovery": {"method": "lora", "trained_parameters": 1, "steps": 1, "tokens": 1,
                 "sparsity": {"before": 0, "after": 0}, "texts": [{"name": "bark", "sha256": "c" * 64}]},
    "versions": {"torch": "2.9"},
    "metrics": {"bytes": {"dense": 2, "artifact": 1}, "parameters": {"dense": 2, "nonzero": 1},
                "sparsity": {"prunable": 0.5, "model": 0.5}},
}  # fmt: skip


def write_key(file: Path) -> Path:
    file.write_text(new_private_key())
    return file


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return write_key(tmp_path / "signing-key")


def trusted(key: Path) -> list[str]:
    return [public_key(key).pem]


def write_artifact(folder: Path, key: Path | None, weights: str = "weights") -> Path:
    (folder / "sub").mkdir(parents=True)
    (folder / "model.safetensors").write_text(weights)
    (folder / "sub" / "more.json").write_text("{}")
    recipe = recipe_of("wanda")
    report = Report.model_validate(REPORT)
    finalise(folder, recipe=recipe, body=recipe.body(), report=report, signer=None if key is None else read_signer(key))
    return folder


def test_a_signed_artifact_says_what_made_it(tmp_path: Path, key: Path) -> None:
    folder = write_artifact(tmp_path / "artifact", key)
    verified = verify_artifact(folder, trusted(key))
    assert (verified.files, verified.keyid) == (4, public_key(key).keyid)
    definition, run = verified.statement.predicate.build_definition, verified.statement.predicate.run_details
    assert definition.external_parameters["method"] == "wanda"
    assert [(each.name, *each.digest.items()) for each in definition.resolved_dependencies] == [
        ("model oak", ("sha256", "a" * 64)), ("leaves", ("sha256", "b" * 64)), ("bark", ("sha256", "c" * 64)),
    ]  # fmt: skip
    assert (run.metadata.invocation_id, run.builder.version) == ("job_1/attempt-2", {"torch": "2.9"})
    assert run.byproducts[0].content == REPORT["metrics"]
    assert "secateur verify FOLDER --key KEY.pem` checks" in (folder / "README.md").read_text()
    statement = json.loads((folder / PROVENANCE).read_text())
    assert statement["payloadType"] == "application/vnd.in-toto+json" and set(statement) == {
        "payload", "payloadType", "signatures",
    }  # fmt: skip


def _change(folder: Path) -> None:
    with (folder / "model.safetensors").open("r+b") as file:
        file.write(b"W")


def _manifest(folder: Path) -> None:
    manifest = folder / "secateur.json"
    manifest.write_text(manifest.read_text().replace('"leaves"', '"thorns"'))


def _link(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder.parent / "elsewhere")
    (folder / "model.safetensors").symlink_to(folder.parent / "elsewhere")


def _linked_folder(folder: Path) -> None:
    (folder / "sub").rename(folder.parent / "sub")
    (folder / "sub").symlink_to(folder.parent / "sub", target_is_directory=True)


@pytest.mark.parametrize(
    ("attack", "said"),
    [
        (_change, "model.safetensors has other bytes"),
        (_manifest, "secateur.json has other bytes"),
        (_link, "model.safetensors is no regular file"),
        (_linked_folder, "sub/more.json is missing; sub is no regular file"),
        (lambda folder: (folder / "run.py").write_text("import os"), "run.py is not of this artifact"),
        (lambda folder: (folder / "sub" / ".hidden").write_text(""), "sub/.hidden is not of this artifact"),
        (lambda folder: (folder / "README.md").rename(folder / "readme.md"), "README.md is missing; readme.md is not"),
        (lambda folder: (folder / "secateur.json").unlink(), "secateur.json is missing"),
        (lambda folder: (folder / PROVENANCE).unlink(), "never signed, or its signature was taken away"),
        (lambda folder: (folder / PROVENANCE).write_text("[]"), "is no signed statement"),
        (lambda folder: (folder / PROVENANCE).write_text("{" * 10**5), "is no signed statement"),
    ],
)  # fmt: skip
def test_what_was_changed_after_signing_is_named(
    tmp_path: Path, key: Path, attack: Callable[[Path], object], said: str
) -> None:
    folder = write_artifact(tmp_path / "artifact", key)
    attack(folder)
    with pytest.raises(errors.VerificationFailed) as caught:
        verify_artifact(folder, trusted(key))
    assert said in str(caught.value)


def test_a_statement_holds_for_one_artifact_and_by_a_trusted_key_alone(tmp_path: Path, key: Path) -> None:
    folder = write_artifact(tmp_path / "artifact", key)
    other = write_artifact(tmp_path / "other", key, weights="others")
    with pytest.raises(errors.VerificationFailed, match="not signed by a key that you trust"):
        verify_artifact(folder, trusted(write_key(tmp_path / "foreign")))
    with pytest.raises(errors.VerificationFailed, match="trusted: none"):
        verify_artifact(folder, [])
    envelope = json.loads((folder / PROVENANCE).read_text())
    shutil.copy(other / PROVENANCE, folder / PROVENANCE)
    with pytest.raises(errors.VerificationFailed, match=r"model\.safetensors has other bytes"):
        verify_artifact(folder, trusted(key))
    for part, value in (("payload", "e30="), ("payloadType", "text/plain"), ("signatures", [])):
        (folder / PROVENANCE).write_text(json.dumps(envelope | {part: value}))
        with pytest.raises(errors.VerificationFailed, match=r"not signed|no signed statement"):
            verify_artifact(folder, trusted(key))
    with pytest.raises(errors.VerificationFailed, match="never signed"):
        verify_artifact(write_artifact(tmp_path / "unsigned", None), trusted(key))
    with pytest.raises(errors.ConfigurationError, match="no public key as PEM"):
        verify_artifact(other, ["a key"])


def test_one_file_is_verified_by_the_statement_beside_it_or_one_that_is_named(tmp_path: Path, key: Path) -> None:
    folder = write_artifact(tmp_path / "artifact", key)
    file = folder / "model.safetensors"
    verified = verify_file(file, trusted(key))
    assert (verified.files, verified.keyid) == (1, public_key(key).keyid)
    moved = file.rename(tmp_path / "oak.safetensors")
    assert verify_file(moved, trusted(key), folder / PROVENANCE).files == 1
    with pytest.raises(errors.VerificationFailed, match="give the artifact's with --statement"):
        verify_file(moved, trusted(key))
    with pytest.raises(errors.VerificationFailed, match="not signed by a key that you trust"):
        verify_file(moved, trusted(write_key(tmp_path / "foreign")), folder / PROVENANCE)
    moved.write_text("Weights")
    with pytest.raises(errors.VerificationFailed, match="has other bytes than were signed"):
        verify_file(moved, trusted(key), folder / PROVENANCE)


def test_what_the_hub_adds_to_a_download_is_no_fault(tmp_path: Path, key: Path) -> None:
    folder = write_artifact(tmp_path / "artifact", key)
    (folder / ".gitattributes").write_text("*.gguf filter=lfs")
    (folder / ".cache" / "huggingface" / "download").mkdir(parents=True)
    (folder / ".cache" / "huggingface" / "download" / "config.json.metadata").write_text("1")
    assert verify_artifact(folder, trusted(key)).files == 4
    (folder / ".cache" / "other").write_text("")
    (folder / "sub" / ".gitattributes").write_text("")
    with pytest.raises(errors.VerificationFailed, match=r"\.cache/other is not .*sub/\.gitattributes is not"):
        verify_artifact(folder, trusted(key))


def test_keys_are_read_from_settings_and_refused_with_their_file(tmp_path: Path, key: Path, settings: Settings) -> None:
    earlier = write_key(tmp_path / "earlier")
    both = tmp_path / "public.pem"
    both.write_text(public_key(key).pem + public_key(earlier).pem)
    signing = settings.model_copy(update={"signing_key": key, "signing_public_keys": both})
    assert [each.keyid for each in public_keys(signing)] == [public_key(key).keyid, public_key(earlier).keyid]
    assert public_keys(settings.model_copy(update={"signing_key": None})) == []
    with pytest.raises(ValueError, match=r"SECATEUR_SIGNING_KEY: .*public\.pem holds no private key"):
        read_signer(both)
    with pytest.raises(ValueError, match=r"SECATEUR_SIGNING_KEY: .*none"):
        read_signer(tmp_path / "none")
    with pytest.raises(ValueError, match=r"SECATEUR_SIGNING_PUBLIC_KEYS: .*signing-key holds no public keys"):
        public_keys(settings.model_copy(update={"signing_public_keys": key}))


def test_the_command_asks_the_server_for_its_keys_or_none_at_all(here: RunHere, tmp_path: Path, key: Path) -> None:
    folder = write_artifact(tmp_path / "artifact", key)
    public = tmp_path / "key.pem"
    public.write_text(public_key(key).pem)
    told = here("verify", str(folder), "--key", str(public))
    assert told.code == 0 and "4 files" in told.out and "model oak  sha256:aaaa" in told.out
    assert here("verify", str(folder), "--key", str(public), "--json").json["verified"] is True
    weights, by_statement = str(folder / "model.safetensors"), ("--statement", str(folder / PROVENANCE))
    told = here("verify", weights, "--key", str(public), *by_statement)
    assert told.code == 0 and "1 file, " in told.out
    told = here("verify", weights, "--key", str(public))
    assert told.code == 0 and "1 file, " in told.out
    assert here("verify", str(folder), "--key", str(public), *by_statement).code == 2
    (folder / "more").write_text("")
    told = here("verify", str(folder), "--key", str(public))
    assert (told.code, told.out) == (1, "") and "more is not of this artifact" in told.err
    told = here("verify", str(folder))
    assert told.code == 1 and "trusted: none" in told.err, "the server of the test has no key"
    assert here("verify", str(folder), "--key", "none").code == 2
