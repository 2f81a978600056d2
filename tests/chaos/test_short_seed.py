"""A whole run of the harness, small: the representative of the long ones of `make nightly`."""

import pytest

from bench.chaos.__main__ import main


@pytest.mark.nightly
@pytest.mark.timeout(600)
def test_two_faults_break_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--faults", "2"]) == 0
    assert capsys.readouterr().out.endswith("\nfaults 2, violations 0\n")
