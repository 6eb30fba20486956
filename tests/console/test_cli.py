"""The command line as a person types it: help, completion, messages, exit codes, pipes, encodings."""

import importlib
import os
import shutil
import subprocess
import sys
import types
from pathlib import Path
from typing import Any

import click
import pytest

from ownlm import cli
from ownlm.console import output
from ownlm.console.errors import Interrupted, OwnlmError, Refused
from ownlm.console.settings import verb
from ownlm.verbs import GROUPS, VERBS, Entry, load_verb

BUILT = [name for name in VERBS if importlib.util.find_spec(f"ownlm.verbs.{name}")]


@verb
def echo(
    text: str = "hello",
    *,
    times: int = 1,
    fail: str = "",
    json: bool = False,
    config: Path | None = None,
) -> list[str]:
    """Say a text.

    Args:
        text: what to say.
        times: how often.
    """
    errors: dict[str, BaseException] = {
        "refused": Refused(
            "too short.", where="a.txt:3", why="A window holds 64 tokens.", do="ownlm prepare b"
        ),
        "broke": OwnlmError("it broke."),
        "stopped": Interrupted("stopped at step 3."),
        "ctrl-c": KeyboardInterrupt(),
        "bug": ZeroDivisionError("division by zero"),
        "disk": OSError(28, "No space left on device", "run/model.safetensors"),
        "memory": RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 byte"),
    }
    if fail:
        raise errors[fail]
    output.say("about to speak")
    if json:
        output.result_json({"text": text})
    for _ in range(times):
        output.result(text)
    return [text] * times


@pytest.fixture
def with_echo(monkeypatch):
    monkeypatch.setitem(VERBS, "echo", Entry("use", "Say a text."))
    monkeypatch.setattr(cli, "load_verb", lambda name: echo if name == "echo" else load_verb(name))


def shell(*args: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m ownlm` in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "ownlm", *args],
        capture_output=True,
        encoding=environment.get("PYTHONIOENCODING", "utf-8"),
        env={**os.environ, **environment},
        timeout=60,
    )


def test_help_has_the_five_groups_and_fits_80_columns():
    done = shell("--help", COLUMNS="80")
    assert done.returncode == 0
    assert done.stderr == ""
    places = [done.stdout.index(f"{group} — {meaning}:") for group, meaning in GROUPS.items()]
    assert len(places) == 5
    assert places == sorted(places)
    for name in VERBS:
        assert f"\n  {name} " in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert shell().stdout == shell("--help").stdout


def test_version():
    from ownlm import __version__

    assert shell("--version").stdout == f"ownlm {__version__}\n"


def test_neither_help_nor_import_loads_anything_heavy():
    heavy = "{'torch', 'numpy', 'pydantic', 'rich', 'tokenizers', 'transformers', 'jinja2'}"
    code = f"""
import sys, io, contextlib
import ownlm, ownlm.cli
with contextlib.redirect_stdout(io.StringIO()) as out:
    assert ownlm.cli.main(["--help"]) == 0
assert "quickstart" in out.getvalue()
print(sorted({heavy} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "[]\n", done.stderr


@pytest.mark.parametrize("name", BUILT)
def test_every_verb_has_help_for_itself_and_all_of_its_parameters(name, capsys):
    assert cli.main([name, "--help"]) == 0
    text = capsys.readouterr().out
    assert f"Usage: ownlm {name}" in text
    assert max(map(len, text.splitlines())) <= 100
    command = cli.verb_command(name)
    assert command.help
    explained = {row for row in command.argument_rows if row[1]}
    assert explained == set(command.argument_rows)
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, f"ownlm {name}: {parameter.name} has no line under Args"


@pytest.mark.parametrize("name", BUILT)
def test_help_of_a_verb_loads_no_torch(name):
    code = f"import sys, ownlm.cli\nownlm.cli.main([{name!r}, '--help'])\nprint('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "False", done.stderr


def test_python_names_are_the_verbs():
    import ownlm

    for name in BUILT:
        function = getattr(ownlm, name)
        assert callable(function)
        assert not isinstance(function, types.ModuleType)
        assert name in dir(ownlm)
    with pytest.raises(AttributeError):
        _ = ownlm.nothing_of_this_name


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["echo"], 0, ""),
        (["echo", "--fail", "broke"], 1, "it broke."),
        (["echo", "--fail", "bug"], 1, "ZeroDivisionError: division by zero ("),
        (["echo", "--fail", "disk"], 1, "run/model.safetensors: the disk is full"),
        (["echo", "--fail", "memory"], 1, "out of memory.\nTry: a smaller --size"),
        (
            ["echo", "--fail", "refused"],
            3,
            "a.txt:3: too short. A window holds 64 tokens.\nTry: ownlm prepare b",
        ),
        (["echo", "--fail", "stopped"], 130, "stopped at step 3."),
        (["echo", "--fail", "ctrl-c"], 130, "interrupted"),
        (["ehco"], 2, 'there is no verb "ehco". Did you mean "echo"?\nTry: ownlm --help'),
        (["echo", "--tmies", "2"], 2, 'no option --tmies. Did you mean "--times"?\nTry: ownlm echo --help'),
        (["echo", "--times", "two"], 2, "Try: ownlm echo --help"),
        (["echo", "a", "b"], 2, "Try: ownlm echo --help"),
        (["--quiet", "echo"], 2, "It goes after the verb"),
    ],
)
def test_exit_codes_and_messages(with_echo, capsys, args, code, said):
    assert cli.main(args) == code
    captured = capsys.readouterr()
    assert said in captured.err
    assert "Traceback" not in captured.err
    assert captured.out == ("hello\n" if code == 0 else "")


def test_debug_shows_the_traceback_and_keeps_the_exit_code(with_echo, capsys):
    assert cli.main(["echo", "--fail", "refused", "--debug"]) == 3
    assert "Traceback" in capsys.readouterr().err
    assert cli.main(["echo", "--fail", "bug", "--debug"]) == 1
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_quiet_leaves_the_result_alone(with_echo, capsys):
    assert cli.main(["echo", "-q"]) == 0
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("hello\n", "")
    assert cli.main(["echo"]) == 0
    assert "about to speak" in capsys.readouterr().err


def test_settings_file_loses_against_an_option_that_repeats_the_default(with_echo, capsys, tmp_path):
    file = tmp_path / "s.yaml"
    file.write_text("times: 3\ntext: 詩\n", encoding="utf-8")
    assert cli.main(["echo", "-c", str(file)]) == 0
    assert capsys.readouterr().out == "詩\n詩\n詩\n"
    assert cli.main(["echo", "-c", str(file), "--times", "1", "hello"]) == 0
    assert capsys.readouterr().out == "hello\n"
    file.write_text("time: 3\n", encoding="utf-8")
    assert cli.main(["echo", "-c", str(file)]) == 2
    assert f'{file}:1: unknown setting "time". Did you mean "times"?' in capsys.readouterr().err


def test_a_reader_that_closes_early_is_no_error(tmp_path):
    """`ownlm … | head -1`."""
    script = tmp_path / "many.py"
    script.write_text(
        "import sys\nfrom ownlm import cli\nfrom ownlm.console import output\n"
        "from ownlm.console.settings import verb\nfrom ownlm.verbs import VERBS, Entry\n"
        "@verb\ndef many() -> None:\n    'Many lines.'\n"
        "    for i in range(100_000): output.result(str(i))\n"
        "VERBS['many'] = Entry('use', 'x')\ncli.load_verb = lambda name: many\n"
        "sys.exit(cli.main(['many']))\n"
    )
    process = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"0\n"
    process.stdout.close()
    assert process.stderr is not None
    assert process.stderr.read() == b""
    assert process.wait(timeout=30) == 0


@pytest.mark.skipif(os.name == "nt", reason="these shells are not here")
def test_words_that_nobody_reads_stop_no_work(tmp_path):
    """`ownlm … 2>&1 | head -1`: the reader of the progress has gone, the work goes on."""
    script = tmp_path / "wordy.py"
    script.write_text(
        "import sys\nfrom pathlib import Path\nfrom ownlm import cli\nfrom ownlm.console import output\n"
        "from ownlm.console.settings import verb\nfrom ownlm.verbs import VERBS, Entry\n"
        "@verb\ndef wordy() -> None:\n    'Many words.'\n"
        "    for i in range(10_000): output.say(str(i))\n"
        f"    Path({str(tmp_path / 'done')!r}).touch()\n"
        "VERBS['wordy'] = Entry('use', 'x')\ncli.load_verb = lambda name: wordy\n"
        "sys.exit(cli.main(['wordy']))\n"
    )
    process = subprocess.Popen([sys.executable, str(script)], stderr=subprocess.PIPE)
    assert process.stderr is not None
    assert process.stderr.readline() == b"0\n"
    process.stderr.close()
    assert process.wait(timeout=30) == 0
    assert (tmp_path / "done").exists()


@pytest.mark.skipif(os.name == "nt", reason="these shells are not here")
@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_change_no_exit_code(closed, tmp_path):
    command = f"'{sys.executable}' -m ownlm prepare nothing.txt {closed}"
    done = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == ("" if "2>" in closed else "nothing.txt: no such file or folder.\n")
    command = f"'{sys.executable}' -m ownlm runs --json {closed}"
    done = subprocess.run(command, shell=True, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0
    assert "Error" not in done.stderr


def test_a_latin_1_terminal_gets_help_and_messages():
    done = shell("--help", PYTHONIOENCODING="latin-1", PYTHONUTF8="0")
    assert done.returncode == 0
    assert "start ? the first minutes" in done.stdout
    done = shell("詩", PYTHONIOENCODING="latin-1", PYTHONUTF8="0")
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_no_colour_codes_off_a_terminal_nor_with_no_color():
    for environment in ({}, {"NO_COLOR": "1", "TERM": "xterm-256color"}):
        done = shell("pretrian", **environment)
        assert done.returncode == 2
        assert "\x1b" not in done.stderr + done.stdout


@pytest.fixture
def path_with_ownlm(tmp_path):
    """A PATH on which `ownlm` is the package under test, as after an installation."""
    folder = tmp_path / "bin"
    folder.mkdir()
    command = folder / "ownlm"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m ownlm "$@"\n')
    command.chmod(0o755)
    return {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"}


def complete(shell_name: str, script: str, environment: dict[str, str]) -> str:
    if not shutil.which(shell_name):
        pytest.skip(f"{shell_name} is not installed")
    done = subprocess.run(
        [shell_name, *(["-f"] if shell_name == "zsh" else []), "-c", script],
        capture_output=True,
        text=True,
        env=environment,
        timeout=60,
    )
    assert "Traceback" not in done.stderr
    return done.stdout


def test_bash_completes_verbs_options_choices_and_files(path_with_ownlm):
    script = """
eval "$(ownlm --completion bash)"
compopt() { echo files; }
complete_words() {
  COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
  _ownlm_completion ownlm "${COMP_WORDS[COMP_CWORD]}" ""
  echo "[${COMPREPLY[*]}]"
}
complete_words ownlm pre
complete_words ownlm ""
complete_words ownlm runs --js
complete_words ownlm --completion z
complete_words ownlm runs so
complete_words ownlm evaluate ""
complete_words ownlm nothing -
complete_words ownlm runs com
"""
    lines = complete("bash", script, path_with_ownlm).splitlines()
    assert lines[0] == "[prepare pretrain]"
    assert lines[1] == f"[{' '.join(VERBS)}]"
    assert lines[2] == "[--json]"
    assert lines[3] == "[zsh]"
    assert lines[4:] == ["files", "[]", "files", "[]", "[--version --completion -h --help]", "[compare]"]


def test_zsh_completes_verbs_with_their_summaries(path_with_ownlm):
    script = """
compdef() {}
_describe() { print -l -- "${(P@)@[-2]}" }
_path_files() { print files }
eval "$(ownlm --completion zsh)"
words=(ownlm do); CURRENT=2; _ownlm_completion
words=(ownlm runs --js); CURRENT=3; _ownlm_completion
words=(ownlm runs so); CURRENT=3; _ownlm_completion
"""
    lines = complete("zsh", script, path_with_ownlm).splitlines()
    assert lines[0].startswith("doctor:What this machine has")
    assert lines[1].startswith("--json:")
    assert lines[2] == "files"


def test_fish_completes_verbs_and_options(path_with_ownlm):
    script = """
source (ownlm --completion fish | psub)
complete -C "ownlm qui"
complete -C "ownlm runs --js"
"""
    lines = complete("fish", script, path_with_ownlm).splitlines()
    assert lines[0].startswith("quickstart")
    assert lines[1].startswith("--json")


def test_completing_options_of_every_verb_loads_no_torch():
    for name in BUILT:
        code = (
            "import sys, atexit\natexit.register(lambda: print('torch' in sys.modules))\n"
            "import ownlm.cli\nsys.exit(ownlm.cli.main([]))"
        )
        words = {"_OWNLM_COMPLETE": "bash_complete", "COMP_WORDS": f"ownlm {name} --", "COMP_CWORD": "2"}
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            env={**os.environ, **words},
            timeout=60,
        )
        assert "plain,--help" in done.stdout, done.stderr
        assert done.stdout.splitlines()[-1] == "False"


def test_a_broken_verb_prints_nothing_into_the_line_being_completed(monkeypatch, capsys):
    def broken(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(cli, "load_verb", broken)
    monkeypatch.setenv("_OWNLM_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", "ownlm doctor --")
    monkeypatch.setenv("COMP_CWORD", "2")
    assert cli.main([]) == 1
    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "")
