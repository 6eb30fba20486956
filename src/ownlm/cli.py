"""The `ownlm` command: finds the verb, loads only its module, turns errors into messages and exit codes."""

from __future__ import annotations

import errno
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from ownlm.console import output
from ownlm.console.errors import (
    EXIT_BROKE,
    EXIT_INTERRUPTED,
    EXIT_USAGE,
    OwnlmError,
    SaidElsewhere,
    UsageError,
    did_you_mean,
    is_disk_full,
    is_out_of_memory,
)
from ownlm.verbs import GROUPS, VERBS, load_verb

OF_SEVERAL_PROCESSES = ("pretrain",)  # what torchrun may start
LAST_WORDS_SECONDS = 30.0  # at most; usually torchrun's signal comes at once

EPILOG = """\
Exit codes: 0 done, 1 something broke, 2 wrong arguments or settings file,
            3 data or a plan was refused, 130 interrupted.
Python:     import ownlm; ownlm.prepare(...): the same names and defaults.
Docs:       docs/README.md. No telemetry."""


class VerbGroup(click.Group):
    """Lists verbs by group from a table, and imports a verb only when it is typed."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        if ctx.resilient_parsing and _completing_verb_name():
            return click.Command(cmd_name, help=VERBS[cmd_name].summary)
        return verb_command(cmd_name)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in VERBS and not ctx.resilient_parsing:
            raise UsageError(
                f'there is no verb "{args[0]}".{did_you_mean(args[0], VERBS)}', do="ownlm --help"
            )
        return super().resolve_command(ctx, args)

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        with _closed_pipe_is_fine():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        with _closed_pipe_is_fine():
            return super().invoke(ctx)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        width = max(map(len, VERBS))
        for group, meaning in GROUPS.items():
            rows = [(n.ljust(width), entry.summary) for n, entry in VERBS.items() if entry.group == group]
            if rows:
                with formatter.section(f"{group} — {meaning}"):
                    formatter.write_dl(rows)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write("\n" + EPILOG + "\n")


@contextmanager
def _closed_pipe_is_fine() -> Iterator[None]:
    """`ownlm … | head` is not an error, and must not complain when the interpreter flushes at its end."""
    try:
        yield
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        output.forget_reader(sys.stdout)
        raise click.exceptions.Exit(0) from None


def _completing_verb_name() -> bool:
    """Completion of the first word needs names and summaries only, not the modules."""
    current = os.environ.get("COMP_CWORD", "")
    if current.isdigit():  # bash and zsh give the position of the word, fish gives the word
        return current == "1"
    return len(os.environ.get("COMP_WORDS", "").split()) - bool(current) <= 1


def verb_command(name: str) -> click.Command:
    """The click command of one verb, with the options every verb has."""
    from ownlm.console.command import build

    function = load_verb(name)

    def invoke(given: dict[str, Any]) -> None:
        if os.environ.get("WORLD_SIZE", "1") != "1" and name not in OF_SEVERAL_PROCESSES:
            raise UsageError(f"ownlm {name} runs in one process.", do=f"ownlm {name} …, without torchrun")
        quiet = bool(given.pop("quiet", False))
        given.pop("debug", None)
        with output.quiet(quiet):
            function(**given)

    command = build(getattr(function, "__ownlm_function__", function), invoke, name)
    command.params += [
        click.Option(["-q", "--quiet"], is_flag=True, help="Only results and warnings."),
        click.Option(["--debug"], is_flag=True, help="Show the Python traceback of an error."),
    ]
    return command


def _version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from ownlm import __version__

        click.echo(f"ownlm {__version__}")
        ctx.exit()


def _completion(ctx: click.Context, _: click.Parameter, shell: str | None) -> None:
    if shell and not ctx.resilient_parsing:
        from click.shell_completion import get_completion_class

        kind = get_completion_class(shell)
        assert kind is not None
        click.echo(kind(app, {}, "ownlm", "_OWNLM_COMPLETE").source())
        ctx.exit()


app = VerbGroup(
    "ownlm",
    help="ownlm: from raw text to a language model you own.\n\nStart with: ownlm quickstart",
    subcommand_metavar="VERB …",
    options_metavar="",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    params=[
        click.Option(
            ["--version"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_version,
            help="Print the version.",
        ),
        click.Option(
            ["--completion"],
            type=click.Choice(["bash", "zsh", "fish"]),
            is_eager=True,
            expose_value=False,
            callback=_completion,
            help="Print the completion script of a shell (docs/install.md says where it goes).",
        ),
    ],
    no_args_is_help=True,
)


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit code (the console script exits with it)."""
    argv = sys.argv[1:] if argv is None else argv
    _fill_closed_streams()
    if hasattr(sys.stdout, "reconfigure"):  # a terminal in Latin-1 or GBK must not break help or a result
        sys.stdout.reconfigure(errors="replace")
    with output.command_line():
        try:
            app.main(args=argv, prog_name="ownlm", standalone_mode=False)
        except Exception as error:
            code = _report(error, debug="--debug" in argv)
            if code not in (0, EXIT_INTERRUPTED) and output.follows():
                _let_the_first_speak(code)
            return code
        except KeyboardInterrupt:
            output.warn("interrupted.")
            return EXIT_INTERRUPTED
    return 0


def _let_the_first_speak(code: int) -> None:
    """torchrun ends all processes as soon as one has failed: the one that says why must be the first to go."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(code))
        time.sleep(LAST_WORDS_SECONDS)


def _fill_closed_streams() -> None:
    """Stand-ins for streams that the shell closed (`>&-`).

    Without them the next file that is opened gets their number, and takes what some library prints.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open(mode, encoding="utf-8"))


def _report(error: Exception, debug: bool) -> int:
    """Show an error as a message (and its traceback with --debug); return the exit code."""
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        click.echo(error.ctx.get_help())
        return 0
    if isinstance(error, click.exceptions.Exit):
        return error.exit_code
    if isinstance(error, click.exceptions.Abort):  # click's word for Ctrl-C
        output.warn("interrupted.")
        return EXIT_INTERRUPTED
    if output.follows() and isinstance(error, (SaidElsewhere, UsageError)):
        return error.exit_code  # the first of several processes says it
    if isinstance(error, click.ClickException):
        return _usage(error)
    if "_OWNLM_COMPLETE" in os.environ and not debug:
        return EXIT_BROKE  # nothing may be printed into the line that is being completed
    if debug:
        traceback.print_exception(error)
    if isinstance(error, OwnlmError):
        _complain(str(error))
        return error.exit_code
    _complain(_unexpected(error))
    return EXIT_BROKE


def _complain(text: str) -> None:
    output.console().print(output.printable(text), markup=False)


def _usage(error: click.ClickException) -> int:
    """click's complaints about options and arguments, in our words."""
    if output.follows():
        return EXIT_USAGE
    context = getattr(error, "ctx", None)
    text = error.format_message()
    if isinstance(error, click.NoSuchOption):
        options = [name for p in context.command.params for name in p.opts] if context is not None else []
        text = f"there is no option {error.option_name}.{did_you_mean(error.option_name, options)}"
        if (
            context is not None
            and context.parent is None
            and error.option_name in ("--debug", "--quiet", "-q")
        ):
            text += " It goes after the verb."
    path = context.command_path if context is not None else "ownlm"
    _complain(f"{text}\nTry: {path} --help")
    return EXIT_USAGE


def _unexpected(error: Exception) -> str:
    """An error nobody foresaw: its kind and place in one line."""
    if is_disk_full(error):
        return (
            f"{getattr(error, 'filename', None) or 'output'}: the disk is full. What was complete is kept.\n"
            "Try: free some space, then run the same command again"
        )
    if isinstance(error, OSError) and error.filename:
        forbidden = error.errno in (errno.EACCES, errno.EPERM, errno.EROFS)
        do = "\nTry: a folder that you may write to" if forbidden else ""
        return f"{error.filename}: {error.strerror}.{do}"
    if is_out_of_memory(error):
        return "out of memory.\nTry: a smaller --size, --context or --per-device-train-batch-size"
    frame = traceback.extract_tb(error.__traceback__)[-1]
    kind = type(error).__name__
    return f"{kind}: {error} ({frame.filename}:{frame.lineno}).\nTry: the same command with --debug"


def run() -> None:
    """Entry point of `python -m ownlm`."""
    sys.exit(main())
