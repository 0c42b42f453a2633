"""The process: its streams, signals, errors in one line, exit codes."""

import contextlib
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from commands import ROOT, save
from PIL import Image

import main
from anogan.errors import UserError
from anogan.runs.distributed import handled

pytestmark = pytest.mark.cli


def test_closed_streams_are_no_bug(here):
    """As by 2>&- and >&- in a shell."""
    words = ["--dataset", "zeros", "--checkpoint_dir", "nosuch"]
    script = 'exec "$0" "$@" 2>&-'
    command = ["sh", "-c", script, sys.executable, str(ROOT / "main.py"), *words]
    assert subprocess.run(command, cwd=here, check=False).returncode == 1
    command[2] = 'exec "$0" "$@" >&-'
    done = subprocess.run(command, cwd=here, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "no trained model in nosuch" in done.stderr
    command += ["--anomaly_test", "--json"]
    done = subprocess.run(command, cwd=here, capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stderr.startswith(
        "error: --json writes to standard output"
    )
    assert len(done.stderr.splitlines()) == 1


def test_files_do_not_get_the_numbers_of_closed_streams(here):
    code = (
        "import os, sys; sys.path.insert(0, sys.argv[1])\n"
        "from anogan.runs.start_up import open_streams\n"
        "open_streams()\n"
        "file = open('file', 'w'); print('x', file=sys.stderr); os.write(2, b'x')\n"
        "sys.exit(file.fileno() < 3)"
    )
    command = ["sh", "-c", 'exec "$0" "$@" 2>&-', sys.executable, "-c", code, str(ROOT)]
    assert subprocess.run(command, cwd=here, check=False).returncode == 0
    assert not (here / "file").read_text()


def test_ctrl_c_while_it_loads_ends_it_without_a_word(here):
    """The first module of this tool that is loaded stands for all."""
    (here / "argparse.py").write_text("import os, signal; os.kill(os.getpid(), signal.SIGINT)")
    variables = {**os.environ, "PYTHONPATH": str(here)}
    done = subprocess.run(
        [sys.executable, str(ROOT / "main.py"), "--help"], env=variables, capture_output=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL), check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (-signal.SIGINT, b"")


def test_when_the_reader_leaves_the_work_goes_on(here):
    """As with | head -1."""
    code = (
        "import os, sys; sys.path.insert(0, sys.argv[1])\n"
        "from anogan.runs.start_up import leave, open_streams\n"
        "open_streams()\n"
        "for i in range(20000): print('a line', flush=not i % 3)\n"
        "print('b line' * 9999, end=''); open('done', 'w').close(); leave(3)"
    )
    command = [sys.executable, "-c", code, str(ROOT)]
    with subprocess.Popen(
        command, cwd=here, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout.readline() == b"a line\n"
        process.stdout.close()
        assert process.stderr.read() == b"" and process.wait(20) == 3
    assert (here / "done").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--train"], "python download.py celebA"),
        (["--train"], "zeros"),
        (["--dataset", "mnist", "--train"], "python download.py mnist"),
        (["--dataset", "mvtec/grid", "--train"], "download.py mvtec --category grid (data sets"),
        (["--dataset", "visa/candle", "--train"], "python download.py visa (data sets"),
        (["--dataset", "nowhere", "--train"], "nowhere"),
        (["--dataset", "zeros", "--train", "--train_size", "1"], "at least 2"),
        (["--dataset", "zeros", "--train", "--input_fname_pattern", "*.jpg"], "*.jpg"),
        (["--dataset", "zeros", "--train", "--crop", "--input_height", "20"], "crop"),
        (["--dataset", "zeros", "--anomaly_test"], "--train"),
    ],
)
def test_a_users_error_is_one_line_with_a_remedy_and_exit_code_1(here, words, message, capsys):
    assert main.main(words) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("error: ") and message in error


def test_a_console_without_a_names_letters_shows_them_escaped(run, zeros):
    save(run / "test_data" / "ones" / "größe\u4e2d.png", zeros[0])
    (run / "test_data" / "ones" / "größe\u4e2d.png").write_bytes(b"broken")
    words = ["--dataset", "zeros", "--anomaly_test", "--no-report"]
    code = f"import sys, main; sys.exit(main.main({words}))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=run,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"},
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr
    assert b"gr\\xf6\\xdfe\\u4e2d.png" in done.stdout and b"Traceback" not in done.stderr


@pytest.fixture
def own_handler():
    """A caller's handler of SIGTERM."""
    before = signal.getsignal(signal.SIGTERM)

    def mine(*_):
        pass

    signal.signal(signal.SIGTERM, mine)
    yield mine
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("end", [None, UserError("no"), KeyboardInterrupt(), ValueError("a bug")])
def test_the_callers_sigterm_handler_is_in_its_place_after_main(own_handler, monkeypatch, end):
    seen = []

    def work(_):
        seen.append(signal.getsignal(signal.SIGTERM))
        if end:
            raise end

    monkeypatch.setattr(main, "run", work)
    with contextlib.suppress(ValueError):
        main.main([])
    assert seen == [signal.default_int_handler]
    assert signal.getsignal(signal.SIGTERM) is own_handler


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="not on this system")
@pytest.mark.parametrize(
    ("before", "within"),
    [(signal.SIG_DFL, signal.default_int_handler), (signal.SIG_IGN, signal.SIG_IGN)],
)
def test_a_closed_terminal_ends_it_as_ctrl_c_does_but_not_under_nohup(monkeypatch, before, within):
    seen = []
    monkeypatch.setattr(main, "run", lambda _: seen.append(signal.getsignal(signal.SIGHUP)) or 0)
    old = signal.signal(signal.SIGHUP, before)
    try:
        assert main.main([]) == 0
        assert seen == [within] and signal.getsignal(signal.SIGHUP) is before
    finally:
        signal.signal(signal.SIGHUP, old)


def test_a_handler_that_python_cannot_put_back_is_left_alone(own_handler, monkeypatch):
    monkeypatch.setattr(signal, "getsignal", lambda _: None)  # as it says of those set in C
    with handled(signal.SIG_DFL, signal.SIGTERM):
        monkeypatch.undo()
        assert signal.getsignal(signal.SIGTERM) is own_handler


def test_main_may_be_called_from_any_thread(run):
    with ThreadPoolExecutor() as pool:
        work = pool.submit(main.main, ["--dataset", "zeros", "--generate_test_images", "9"])
        assert work.result() == 0
    assert Image.open(run / "samples" / "zeros" / "samples.png").size == (56, 56)


@pytest.mark.parametrize("stream", ["io.StringIO()", "Notebook()"])
def test_a_notebook_that_runs_it_goes_on(here, stream):
    """As by %run: the module is called __main__, the streams are the notebook's own."""
    code = (
        "import io, runpy, signal, sys; sys.path.insert(0, sys.argv[1])\n"
        "class Notebook:\n"
        "    encoding = 'utf-8'\n"
        "    text = ''\n"
        "    def write(self, text): self.text += text\n"
        "    def flush(self): pass\n"
        "    def getvalue(self): return self.text\n"
        "path = sys.argv[1] + '/main.py'\n"
        f"sys.argv = [path, '--version']; sys.stdout = out = {stream}\n"
        "try: runpy.run_path(path, run_name='__main__')\n"
        "except SystemExit as end: assert not end.code\n"
        "sys.argv = [path, '--dataset', 'nosuch', '--train']\n"
        "try: runpy.run_path(path, run_name='__main__')\n"
        "except SystemExit as end: assert end.code == 1\n"
        "assert signal.getsignal(signal.SIGINT) is signal.default_int_handler\n"
        "assert sys.stdout is out and out.getvalue().startswith('AnoGAN')\n"
        "sys.exit(7)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(ROOT)], cwd=here, capture_output=True, text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL), check=False,
    )  # fmt: skip
    assert done.returncode == 7, done.stderr


def test_a_profile_of_it_is_printed(here):
    command = [sys.executable, "-m", "cProfile", str(ROOT / "main.py"), "--dataset", "nosuch"]
    done = subprocess.run(command, cwd=here, capture_output=True, text=True, check=False)
    assert "function calls" in done.stdout and "no trained model" in done.stderr
