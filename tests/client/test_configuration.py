from pathlib import Path

import pytest

from secateur.configuration import Configuration, resolve
from secateur.errors import ConfigurationError


def test_the_home_of_an_embedded_server_is_enough(home: Path) -> None:
    (home / "url").write_text("http://127.0.0.1:8123/\n")
    (home / "api-key").write_text("sct_home\n")
    assert resolve() == Configuration("http://127.0.0.1:8123", "sct_home")


def test_the_environment_goes_before_the_home_and_arguments_before_both(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "url").write_text("http://127.0.0.1:8123")
    (home / "api-key").write_text("sct_home")
    monkeypatch.setenv("SECATEUR_URL", "https://prune.example")
    monkeypatch.setenv("SECATEUR_API_KEY", "sct_environment")
    assert resolve() == Configuration("https://prune.example", "sct_environment")
    assert resolve("https://other.example/", "sct_argument") == Configuration("https://other.example", "sct_argument")


def test_the_key_of_the_home_is_never_sent_to_another_server(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "api-key").write_text("sct_home")
    monkeypatch.setenv("SECATEUR_URL", "https://prune.example")
    with pytest.raises(ConfigurationError, match=r"no API key for https://prune\.example: set SECATEUR_API_KEY"):
        resolve()


@pytest.mark.parametrize("url", ["prune.example", "ftp://prune.example", "http://", "http://a:b:c", "https://a/?b=c"])
def test_what_is_no_address_of_a_server_is_named(url: str) -> None:
    with pytest.raises(ConfigurationError, match="write it like http"):
        resolve(url, "sct_key")


@pytest.mark.parametrize("key", ["sct_ä", "sct key", "sct_\nkey"])
def test_a_key_that_no_header_can_carry_is_refused(key: str) -> None:
    with pytest.raises(ConfigurationError, match="copy it again"):
        resolve("https://prune.example", key)
