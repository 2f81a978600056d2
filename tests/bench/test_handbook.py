"""The text outside the domain: what is taken of a page, from where, and what is said where there is none."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from bench.claims.sources import MissingData
from bench.handbook import paragraphs, write_handbook

LONG = "A package that is installed but not configured is neither of use nor out of the way, {}."
PAGE = f"""<html><head><title>{LONG.format("a title")}</title></head><body>
<p id="title"><a href="x"><img src="y" /></a></p><ul><li>{LONG.format("a list")}</li></ul>
<div class="para"> {LONG.format("with <code>dpkg</code>,<br> &amp;   spaces")}

	<div class="note para">{LONG.format("within another")}</div></div>
<p>Short.</p><pre>{LONG.format("code")}</pre><p>{LONG.format("an element p")}</p></body></html>"""


def test_paragraphs_are_those_that_are_long_in_order_each_once() -> None:
    ends = ("with dpkg, & spaces", "within another", "an element p")
    assert paragraphs(PAGE) == [LONG.format(end) for end in ends]
    assert paragraphs(f"<p>{'x' * 80}</p>") == []
    assert paragraphs(f"<p>{'x' * 81}</p>") == ["x" * 81]


def documents(file: Path) -> list[str]:
    return [json.loads(line)["text"] for line in file.read_text().splitlines()]


def test_a_folder_that_is_named_is_read_page_by_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEBIAN_HANDBOOK", str(tmp_path))
    target = tmp_path / "out" / "handbook.jsonl"
    with pytest.raises(MissingData, match=r"DEBIAN_HANDBOOK names .* which holds no \*\.html"):
        write_handbook(target)
    (tmp_path / "b.html").write_text(PAGE)
    (tmp_path / "a.html").write_text(f"<p>{LONG.format('first')}</p>")
    (tmp_path / "c.html").write_text("<p>Nothing long.</p>")
    write_handbook(target)
    assert documents(target) == [LONG.format("first"), "\n\n".join(paragraphs(PAGE))]


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of programs that is searched before all others, and an empty cache to work in."""
    monkeypatch.delenv("DEBIAN_HANDBOOK", raising=False)
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def write_apt_get(folder: Path, script: str) -> None:
    (folder / "apt-get").write_text(f"#!/bin/sh\n{script}\n")
    (folder / "apt-get").chmod(0o755)


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="dpkg-deb is Debian's")
def test_the_package_is_downloaded_once_and_read_without_installing_it(programs: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for language, text in (("en-US", "English"), ("de-DE", "German")):
        pages = tree / "usr/share/doc/debian-handbook/html" / language
        pages.mkdir(parents=True)
        (pages / "apt.html").write_text(f"<p>{LONG.format(text)}</p>")
    (tree / "DEBIAN").mkdir()
    (tree / "DEBIAN" / "control").write_text(
        "Package: debian-handbook\nVersion: 1.0\nArchitecture: all\nMaintainer: x <x@example.org>\nDescription: x\n"
    )
    package = tmp_path / "debian-handbook_1.0_all.deb"
    subprocess.run(["dpkg-deb", "--build", "--root-owner-group", tree, package], check=True, capture_output=True)
    write_apt_get(programs, f"test $1 = download && cp {package} .")
    target = tmp_path / "handbook.jsonl"
    assert write_handbook(target) == "debian-handbook_1.0_all"
    assert documents(target) == [LONG.format("English")]
    write_apt_get(programs, "exit 1")
    assert write_handbook(target) == "debian-handbook_1.0_all"
    kept = tmp_path / ".cache/bench/debian-handbook" / package.name
    kept.write_bytes(package.read_bytes()[:100])
    with pytest.raises(MissingData, match=r"debian-handbook_1\.0_all\.deb cannot be read .*remove it"):
        write_handbook(target)


def test_where_it_cannot_be_had_it_is_said_what_to_do(
    programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_apt_get(programs, "echo 'E: Unable to locate package debian-handbook' >&2; exit 100")
    with pytest.raises(MissingData, match=r"Unable to locate package(.|\n)*apt-get update.*DEBIAN_HANDBOOK"):
        write_handbook(tmp_path / "handbook.jsonl")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingData, match=r"no apt-get.*DEBIAN_HANDBOOK"):
        write_handbook(tmp_path / "handbook.jsonl")
    assert not (tmp_path / "handbook.jsonl").exists()
