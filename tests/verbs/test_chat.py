"""`ownlm chat`: one message, lines of one conversation, a terminal; and models that were not taught to."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import select
import shlex
import shutil
import subprocess
import sys
import time

import pytest

import ownlm
from ownlm.cli import main
from ownlm.verbs import _talk

# ---- models that do not chat


def test_a_model_of_text_alone_is_refused_with_a_command_that_works(run, capsys):
    assert main(["chat", str(run)]) == 3
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "was not taught to chat. What it does: continues text." in shown.err
    command = shlex.split(shown.err.partition("Try: ")[2].splitlines()[0])
    assert command[:3] == ["ownlm", "generate", str(run)]
    assert main([*command[1:], "--max-new-tokens", "2"]) == 0
    assert capsys.readouterr().out.startswith(command[3])


def test_a_checkpoint_knows_what_its_run_was_taught(run, capsys):
    checkpoint = next((run / "checkpoints").iterdir())
    assert main(["chat", str(checkpoint)]) == 3
    assert "What it does: continues text." in capsys.readouterr().err


def test_no_model_is_another_message(tmp_path, capsys):
    assert main(["chat", str(tmp_path / "nothing")]) == 2
    assert "no such run folder" in capsys.readouterr().err


def test_a_model_that_chats_and_lost_its_template_is_not_told_that_it_does_not(run, tmp_path, capsys):
    copy = tmp_path / "a copy"
    shutil.copytree(run, copy, ignore=shutil.ignore_patterns("checkpoints"))
    content = json.loads((copy / "run.json").read_text(encoding="utf-8"))
    (copy / "run.json").write_text(json.dumps(content | {"taught": ["chat"]}), encoding="utf-8")
    assert main(["chat", str(copy), "a"]) == 3
    said = capsys.readouterr().err
    assert "not taught to chat" not in said
    assert "has no chat template" in said


def test_a_given_template_is_used_and_that_it_was_not_taught_is_said(run, talker, capsys):
    words = ["a", "--max-new-tokens", "3", "--seed", "1"]
    assert main(["chat", str(run), *words, "--chat-template", "alpaca"]) == 0
    assert "not taught to chat, and not with the template alpaca" in capsys.readouterr().err
    assert main(["chat", str(talker), *words]) == 0
    assert "not taught" not in capsys.readouterr().err


# ---- one message, and lines


@pytest.fixture(scope="module")
def model(talker):
    return ownlm.load(talker)


@pytest.fixture
def typed(talker, capsys, monkeypatch):
    """Types `ownlm chat TALKER …`; gives (exit code, standard output, standard error)."""

    def chat(*words, stdin=b""):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8"))
        code = main(["chat", str(talker), *map(str, words)])
        return (code, *capsys.readouterr())

    return chat


SHORT = ["--max-new-tokens", 8, "--seed", 3]


def test_standard_output_holds_the_answer_and_nothing_else(typed, model, tmp_path):
    expected = model.chat("Who?", seed=3, max_new_tokens=8).text
    assert expected
    assert typed("Who?", *SHORT)[:2] == (0, expected + "\n")
    assert typed("Who?", *SHORT, "-q") == (0, expected + "\n", "")
    (tmp_path / "q.txt").write_text("Who?", encoding="utf-8")
    assert typed(f"@{tmp_path / 'q.txt'}", *SHORT)[1] == expected + "\n"
    assert typed("-", *SHORT, stdin=b"Who?\n")[1] == expected + "\n"
    assert typed("-", *SHORT, stdin=b"Who?\nAnd?\n")[1] != expected + "\n"  # both lines are one message
    assert ownlm.chat(model, "Who?", max_new_tokens=8, seed=3) == expected


def test_lines_are_turns_of_one_conversation(typed, model):
    code, shown, said = typed(*SHORT, stdin="Who?\n\n谁？\r\nAnd?".encode())
    assert code == 0
    assert "Each line of standard input is a message of one conversation." in said
    assert "standard input:2: an empty line is no message." in said
    messages, texts = [], []
    for question in ("Who?", "谁？", "And?"):
        messages.append({"role": "user", "content": question})
        texts.append(model.chat(messages, seed=3, max_new_tokens=8).text)
        messages.append({"role": "assistant", "content": texts[-1]})
    assert shown == "\n\n".join(texts) + "\n"
    alone = typed(*SHORT, stdin=b"And?")[1]
    assert alone != texts[-1] + "\n"


def test_json_holds_messages_counts_reasons_and_seed(typed, model, talker):
    code, shown, _ = typed("--json", "--system", "Be short.", *SHORT, stdin=b"Who?\nAnd?\n")
    content = json.loads(shown)
    assert (code, content["model"], content["seed"]) == (0, str(talker), 3)
    assert [m["role"] for m in content["messages"]] == ["system", "user", "assistant", "user", "assistant"]
    for place in (2, 4):
        plain = [{"role": m["role"], "content": m["content"]} for m in content["messages"][:place]]
        answer = model.chat(plain, seed=3, max_new_tokens=8)
        message = content["messages"][place]
        assert (message["content"], message["new_tokens"]) == (answer.text, answer.new_tokens)
        assert (message["prompt_tokens"], message["finish_reason"]) == (
            answer.prompt_tokens,
            answer.finish_reason,
        )
        assert (message["seed"], message["messages_left_out"]) == (3, 0)
    assert content["settings"]["max_new_tokens"] == 8
    assert re.fullmatch("[0-9a-f]{64}", content["chat_template"]["sha256"])


def test_the_drawn_seed_gives_the_same_answers_again(typed):
    _, first, said = typed("Who?", "--max-new-tokens", 9)
    seed = re.search(r"The same answers again: --seed (\d+)", said)
    assert typed("Who?", "--max-new-tokens", 9, "--seed", seed[1])[1] == first
    assert "same answers again" not in typed("Who?", "--temperature", 0, "--max-new-tokens", 2)[2]


def test_every_option_reaches_the_answer(typed, model, tmp_path):
    system = tmp_path / "system.txt"
    system.write_text("Be short.", encoding="utf-8")
    plain = typed("Who?", *SHORT)[1]
    for words in (
        ["--temperature", 0],
        ["--top-k", 2],
        ["--top-p", 0.1],
        ["--min-p", 0.9],
        ["--repetition-penalty", 9],
        ["--system", "Be short."],
        ["--chat-template", "alpaca"],
        ["--choices", "yes,no"],
        ["--regex", "[0-9]+"],
        ["--schema", '{"type": "integer"}'],
        ["--stop", plain[4:5]],
        ["--max-new-tokens", 3],
        ["--seed", 4],
    ):
        code, shown, said = typed("Who?", *SHORT, *words)
        assert code == 0, said
        assert shown != plain, words
    assert (
        typed("Who?", *SHORT, "--system", f"@{system}")[1]
        == typed("Who?", *SHORT, "--system", "Be short.")[1]
    )
    assert typed("Who?", *SHORT, "--choices", "yes,no")[1] in ("yes\n", "no\n")
    cut = typed("Who?", *SHORT, "--regex", "x{40}")
    assert cut[0] == 0 and "cut before its form was complete" in cut[2]
    assert typed("Who?", "--regex", "(")[0] == 2


def test_what_an_answer_does_not_show_is_said(typed):
    assert "8 tokens are reached (--max-new-tokens for more)" in typed("Who?", *SHORT)[2]
    said = typed("Who? " * 20, "--seed", 1, "--regex", "x{200}")[2]
    assert "the context window of 128 tokens is full" in said
    long = "\n".join(["Who runs and rests again?"] * 6).encode()
    assert "its oldest 2 messages were left out" in typed(*SHORT, stdin=long)[2]
    assert "spells <|im_end|>" in typed("Who?<|im_end|>", *SHORT)[2]


def test_dtype_is_the_arithmetic(typed):
    found = {}
    for dtype in ("float32", "int8", "auto"):
        code, shown, _ = typed("Who?", "--temperature", 0, "--max-new-tokens", 1, "--json", "--dtype", dtype)
        assert code == 0
        found[dtype] = json.loads(shown)["messages"][1]["logprob"]
    assert found["auto"] == found["float32"] != found["int8"]
    assert found["int8"] == pytest.approx(found["float32"], abs=0.1)


def test_an_adapter_folder_chats_with_its_own_template_or_that_of_its_base(talker, tmp_path, capsys):
    from tests.test_adapters import made

    adapter = made(talker, tmp_path / "adapter", 1)
    (adapter / "run.json").unlink()  # as from elsewhere: nothing says what it was taught
    words = ["chat", str(adapter), "Who?", *map(str, SHORT)]
    assert main(words) == 0
    of_the_base = capsys.readouterr().out
    assert of_the_base == ownlm.load(adapter).chat("Who?", seed=3, max_new_tokens=8).text + "\n"
    shutil.copyfile(talker / "chat_template.jinja", adapter / "chat_template.jinja")
    assert main(words) == 0
    assert capsys.readouterr().out == of_the_base
    (adapter / "chat_template.jinja").write_text("{{ messages[-1].content }}", encoding="utf-8")
    assert main(words) == 0
    assert capsys.readouterr().out != of_the_base


@pytest.mark.parametrize(
    ("stdin", "code", "says"),
    [
        (b"", 3, "standard input: no message came"),
        (b"\n \n", 3, "no message came"),
        (b"Who?\nab\xff\n", 3, "standard input:2: byte 2 of the line is not UTF-8"),
        (b"Who?\n" + b"fox " * 25_000 + b"\n", 3, "standard input:2: the message has"),
        (b"x" * (10**7 + 1), 3, "standard input:1: a line of more than 10 MB"),
    ],
    ids=["nothing", "empty lines", "not UTF-8", "100,000 characters", "no line end"],
)
def test_input_that_cannot_be_messages(typed, stdin, code, says):
    """What was answered before it stays printed."""
    found, shown, said = typed(*SHORT, stdin=stdin)
    assert found == code
    assert says in said
    if stdin.startswith(b"Who?"):
        assert shown == typed("Who?", *SHORT)[1]
        content = json.loads(typed("--json", *SHORT, stdin=stdin)[1])
        assert len(content["messages"]) == 2
    else:
        assert shown == ""


def test_roles_that_the_template_refuses(typed, tmp_path):
    file = tmp_path / "strict.jinja"
    file.write_text(
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system text') }}{% endif %}"
        "{{ m.content }}{% endfor %}",
        encoding="utf-8",
    )
    code, shown, said = typed("Who?", "--system", "x", "--chat-template", file)
    assert (code, shown) == (3, "")
    assert "strict.jinja: the chat template refuses these messages (no system text)" in said
    code, _, said = typed("Who?", *SHORT, "--chat-template", file)
    assert code == 0 and "no token that ends an answer" in said


# ---- at a terminal

pty = pytest.importorskip("pty")

# The terminal becomes the program's own, so that its Ctrl-C is a signal; answers are slow enough to be stopped.
PROGRAM = """
import fcntl, sys, termios, time
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
import ownlm.cli, ownlm.loaded
plain = ownlm.loaded.continue_texts
def slowly(*args):
    for piece in plain(*args):
        time.sleep(SECONDS)
        yield piece
ownlm.loaded.continue_texts = slowly
sys.exit(ownlm.cli.main(sys.argv[1:]))
"""


class Terminal:
    """A program at a pseudo-terminal; what it prints is read up to a text that is waited for."""

    def __init__(self, words, seconds=0.0, cwd=None):
        ours, theirs = pty.openpty()
        program = PROGRAM.replace("SECONDS", str(seconds))
        environment = os.environ | {"TERM": "dumb", "NO_COLOR": "1", "PYTHONIOENCODING": "utf-8"}
        self.process = subprocess.Popen(
            [sys.executable, "-c", program, *map(str, words)],
            stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True, env=environment, cwd=cwd,
        )  # fmt: skip
        os.close(theirs)
        self.file, self.seen = ours, ""

    def until(self, text, seconds=200.0):
        """What is printed up to and with a text; a number stands for so many characters of any text."""
        end = time.monotonic() + seconds
        while len(self.seen) < text if isinstance(text, int) else text not in self.seen:
            left = end - time.monotonic()
            if left <= 0 or not select.select([self.file], [], [], left)[0]:
                raise AssertionError(f"{text!r} did not come: {self.seen!r}")
            try:
                data = os.read(self.file, 65536)
            except OSError:  # the program has ended
                data = b""
            if not data:
                raise AssertionError(f"{text!r} did not come before the end: {self.seen!r}")
            self.seen += data.decode("utf-8", "replace").replace("\r\n", "\n")
        place = text if isinstance(text, int) else self.seen.index(text) + len(text)
        found, self.seen = self.seen[:place], self.seen[place:]
        return found

    def type(self, text):
        os.write(self.file, text if isinstance(text, bytes) else text.encode())

    def ask(self, line):
        """Type a line at the prompt; what is printed up to the next prompt, the line that is echoed left out."""
        self.type(line if isinstance(line, bytes) else line + "\n")
        return self.until("you> ").removesuffix("you> ").partition("\n")[2]

    def ends(self):
        """The exit code, and what was printed last."""
        with contextlib.suppress(OSError):  # the end of a terminal
            while select.select([self.file], [], [], 200)[0] and (data := os.read(self.file, 65536)):
                self.seen += data.decode("utf-8", "replace")
        return self.process.wait(timeout=60), self.seen

    def close(self):
        self.process.kill()
        self.process.wait()
        os.close(self.file)


@pytest.fixture
def terminal(talker, tmp_path):
    opened = []

    def start(*words, seconds=0.0):
        opened.append(Terminal(["chat", talker, *words], seconds, tmp_path))
        opened[-1].until("you> ")
        return opened[-1]

    yield start
    for one in opened:
        one.close()


def test_a_conversation_at_a_terminal(terminal, model, tmp_path):
    """Messages, every command, bad input, and that the file of /save is a data set."""
    screen = terminal(*SHORT, "--system", "Be short.")
    front = [{"role": "system", "content": "Be short."}]

    def expected(questions, system=front, seed=3):
        messages = [*system]
        for question in questions:
            messages.append({"role": "user", "content": question})
            text = model.chat(messages, seed=seed, max_new_tokens=8).text
            messages.append({"role": "assistant", "content": text})
        return text

    def shown(text):
        from ownlm.console.output import printable

        return printable(text)

    assert screen.ask("").strip() == ""  # an empty line is asked again
    assert screen.ask("Who?").startswith(shown(expected(["Who?"])))
    assert screen.ask("春眠？").startswith(shown(expected(["Who?", "春眠？"])))
    assert "/again" in screen.ask("/help")
    assert 'Did you mean "undo"' in screen.ask("/und")
    second = screen.ask("/again")
    messages = [*front, {"role": "user", "content": "Who?"}, {"role": "assistant", "content": expected(["Who?"])},
                {"role": "user", "content": "春眠？"}]  # fmt: skip
    other = model.chat(messages, seed=4, max_new_tokens=8).text
    assert second.startswith(shown(other)) and "seed 4" in second
    assert "'春眠？' and its answer. 1 before it stay" in screen.ask("/undo")
    assert "talk.jsonl: row 1, 3 messages" in screen.ask("/save talk.jsonl")
    assert "the message has" in screen.ask("x y " * 500)
    assert "row 2" in screen.ask("/save talk.jsonl")  # what was refused is not kept
    assert "Forgotten: 1" in screen.ask("/clear")
    assert "there is nothing to take back" in screen.ask("/undo")
    assert "no answer yet" in screen.ask("/again")
    assert "nothing has been said" in screen.ask("/save talk.jsonl")
    assert "is set" in screen.ask("/system Be long.")
    assert screen.ask("Who?").startswith(
        shown(expected(["Who?"], [{"role": "system", "content": "Be long."}]))
    )
    assert "no system text any more" in screen.ask("/system")
    screen.ask("/clear")
    assert screen.ask(" /who").startswith(shown(expected([" /who"], [])))
    assert "not UTF-8" in screen.ask(b"ab\xff\n")
    screen.type("/exit\n")
    assert screen.ends()[0] == 0
    rows = [json.loads(line) for line in (tmp_path / "talk.jsonl").read_text(encoding="utf-8").splitlines()]
    first = [
        *front,
        {"role": "user", "content": "Who?"},
        {"role": "assistant", "content": expected(["Who?"])},
    ]
    assert rows == [{"messages": first}] * 2
    assert main(["data", "check", str(tmp_path / "talk.jsonl")]) == 0


def test_ctrl_c_stops_an_answer_and_a_second_one_leaves(terminal):
    screen = terminal("--seed", 3, "--temperature", 0.7, "--regex", "[a-z]{50,}", seconds=0.1)
    screen.type("Who?\n")
    screen.until("Who?\n")
    assert re.fullmatch("[a-z]{5}", screen.until(5))
    screen.type("\x03")
    stopped = screen.until("you> ")
    assert "The answer was stopped here." in stopped
    assert len(stopped) < 200
    assert "'Who?' and its answer. 0 before it stay" in screen.ask("/undo")  # what was written was kept
    screen.type("half a line\x03")
    assert "Ctrl-C again, Ctrl-D or /exit leaves." in screen.until("you> ")
    screen.type("/help\n")
    screen.until("you> ")
    screen.type("Who?\n")
    screen.until("Who?\n")
    screen.until(1)
    screen.type("\x03")
    assert "The answer was stopped here." in screen.until("you> ")
    screen.type("\x03")
    code, said = screen.ends()
    assert code == 0 and "Traceback" not in said


def test_a_second_ctrl_c_does_not_wait_for_a_step_that_takes_long(terminal):
    screen = terminal("--seed", 3, "--regex", "[a-z]{50,}", seconds=1000)
    screen.type("Who?\n")
    for _ in range(100):  # two at the same moment would be one
        time.sleep(0.5)
        if screen.process.poll() is not None:
            break
        screen.type("\x03")
    code, said = screen.ends()
    assert code == 0 and "Traceback" not in said


def test_ctrl_d_leaves_and_json_needs_messages(terminal, talker):
    screen = terminal("-q")
    screen.type("\x04")
    assert screen.ends()[0] == 0
    other = Terminal(["chat", talker, "--json"])
    try:
        code, said = other.ends()
    finally:
        other.close()
    assert code == 2 and "--json: needs a message" in said


def test_a_file_that_holds_something_else_is_not_written_to(model, tmp_path):
    from ownlm.conversation import Conversation

    talk = _talk.Talk(Conversation(model), {"max_new_tokens": 2}, 1)
    talk.ask("Who?", lambda _: None)
    for name, content in (("a.txt", b"notes\n"), ("b.jsonl", b'{"text": "a"}\n'), ("c.bin", b"\xff\xfe")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ownlm.Refused, match=name):
            _talk.save(talk, tmp_path / name)
        assert (tmp_path / name).read_bytes() == content
    with pytest.raises(ownlm.OwnlmError, match="cannot be written"):
        _talk.save(talk, tmp_path / "nowhere" / "talk.jsonl")
    (tmp_path / "d.jsonl").write_bytes(b'{"messages": []}')  # without an end of its line
    assert _talk.save(talk, tmp_path / "d.jsonl") == 2
    assert len((tmp_path / "d.jsonl").read_text(encoding="utf-8").splitlines()) == 2


def test_an_answer_that_is_stopped_is_kept_as_far_as_it_came(model):
    from ownlm.conversation import Conversation

    talk = _talk.Talk(Conversation(model), {"regex": "🦊+", "max_new_tokens": 9}, 1)
    shown = []
    turn = talk.ask("Who?", shown.append, stopped=lambda: True)
    assert shown == ["🦊"]
    assert talk.turns == [turn]
    assert (turn.answer, turn.finish_reason) == ("🦊", "interrupted")
    assert talk.document(0.0)["messages"][1]["finish_reason"] == "interrupted"
    assert not model.engine.busy
