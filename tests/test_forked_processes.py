"""Programs that copies of the run's loaded process run: they are as if `python` had been started for them."""

import json
import os
import signal
import subprocess
from pathlib import Path

import psutil
import pytest

from tests.forked_processes import warm_python
from tests.worker.conftest import eventually, is_alive

pytestmark = pytest.mark.skipif("SUITE_FORKS" not in os.environ, reason="the processes of this run are not forked")

TELL = """
import json, os, sys
print(json.dumps([sys.argv, os.getcwd(), os.environ["SAID"], "torch" in sys.modules, __name__, sys.stdin.read()]))
"""


def test_a_program_has_its_arguments_folder_environment_and_streams(tmp_path: Path) -> None:
    done = subprocess.run(
        [*warm_python(), "-c", TELL, "one", "-m"],
        cwd=tmp_path, env=os.environ | {"SAID": "here"}, input="words", capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads(done.stdout) == [["-c", "one", "-m"], str(tmp_path), "here", True, "__main__", "words"]


def test_modules_and_programs_on_stdin_are_run_too(tmp_path: Path) -> None:
    (tmp_path / "counting.py").write_text("import sys\nprint(__name__, len(sys.argv))\n")
    for arguments, program in ((["-m", "counting", "one"], ""), (["-", "one"], "import counting, sys; print('stdin')")):
        done = subprocess.run(
            [*warm_python(), *arguments], cwd=tmp_path, input=program, capture_output=True, text=True, check=True
        )
        assert done.stdout.splitlines()[-1] == ("stdin" if program else "__main__ 2"), done


@pytest.mark.parametrize(
    ("program", "code"),
    [
        ("raise SystemExit(7)", 7),
        ("1 / 0", 1),
        ("import os; os.kill(os.getpid(), 9)", -signal.SIGKILL),
        ("import os; os.abort()", -signal.SIGABRT),
    ],
)
def test_it_ends_as_its_program_does(program: str, code: int, tmp_path: Path) -> None:
    ended = subprocess.run([*warm_python(), "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == code
    assert ("ZeroDivisionError" in ended.stderr) == (code == 1)


def test_where_it_is_killed_its_program_is_too() -> None:
    program = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
    with subprocess.Popen([*warm_python(), "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        own = int(process.stdout.readline())
        assert own != process.pid and psutil.Process(own).is_running()
        process.kill()
        eventually(lambda: not is_alive(own))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_what_it_is_told_by_signals_its_program_is_told(number: signal.Signals) -> None:
    program = f"""
import signal
signal.pthread_sigmask(signal.SIG_BLOCK, [{int(number)}])
print(flush=True)
raise SystemExit(signal.sigwait([{int(number)}]))
"""
    with subprocess.Popen([*warm_python(), "-c", program], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(number)
        assert process.wait() == number
