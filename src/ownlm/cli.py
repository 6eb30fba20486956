"""The `ownlm` command: finds the verb, loads only its module, turns errors into messages and exit codes."""

from __future__ import annotations

import os
import sys
from typing import Any

import click

from ownlm.console.errors import EXIT_BROKE, EXIT_INTERRUPTED, EXIT_USAGE, OwnlmError, UsageError, did_you_mean
from ownlm.verbs import GROUPS, VERBS, load_verb

EPILOG = """Exit codes: 0 done, 1 something broke, 2 wrong arguments, 3 data or a plan was refused, 130 interrupted.
Python: import ownlm; ownlm.prepare(...), the same names. Docs: docs/README.md. No telemetry."""


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

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in VERBS:
            raise UsageError(f'there is no verb "{args[0]}".{did_you_mean(args[0], VERBS)}', do="ownlm --help")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for group, meaning in GROUPS.items():
            rows = [(name, entry.summary) for name, entry in VERBS.items() if entry.group == group]
            if rows:
                with formatter.section(f"{group} — {meaning}"):
                    formatter.write_dl(rows, col_max=14)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        formatter.write("\n" + EPILOG + "\n")


def _completing_verb_name() -> bool:
    """Completion of the first word needs names and summaries only, not the modules."""
    return len(os.environ.get("COMP_WORDS", "").split()) <= 2


def verb_command(name: str) -> click.Command:
    """The click command of one verb, with the options every verb has."""
    from ownlm.console import output
    from ownlm.console.command import build

    function = load_verb(name)

    def invoke(given: dict[str, Any]) -> None:
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
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    params=[
        click.Option(["--version"], is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Print the version."),
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
    from ownlm.console import output

    output.mark_cli()
    argv = sys.argv[1:] if argv is None else argv
    debug = "--debug" in argv
    try:
        app.main(args=argv, prog_name="ownlm", standalone_mode=False)
        return 0
    except (click.exceptions.Exit, click.exceptions.NoArgsIsHelpError) as stop:
        if isinstance(stop, click.exceptions.NoArgsIsHelpError):
            click.echo(stop.ctx.get_help())
            return 0
        return stop.exit_code
    except click.exceptions.Abort:
        return EXIT_INTERRUPTED
    except click.ClickException as error:
        return _usage(error)
    except OwnlmError as error:
        if debug:
            raise
        output.console().print(str(error), style=None, markup=False)
        return error.exit_code
    except KeyboardInterrupt:
        output.warn("interrupted.")
        return EXIT_INTERRUPTED
    except BrokenPipeError:  # `ownlm … | head` is not an error
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115, PTH123 - must outlive the interpreter's last flush
        return 0
    except Exception as error:
        if debug:
            raise
        return _unexpected(error)


def _usage(error: click.ClickException) -> int:
    from ownlm.console import output

    context = getattr(error, "ctx", None)
    text = error.format_message()
    if isinstance(error, click.NoSuchOption) and context is not None:
        options = [o for p in context.command.params for o in p.opts]
        text = f"there is no option {error.option_name}.{did_you_mean(error.option_name, options)}"
        from ownlm.console.settings import ALIASES

        meant = ALIASES.get(error.option_name.lstrip("-").replace("-", "_"))
        if meant:
            text = f"there is no option {error.option_name}; here it is called --{meant.replace('_', '-')}."
    path = context.command_path if context is not None else "ownlm"
    output.console().print(f"{text}\nTry: {path} --help", markup=False)
    return EXIT_USAGE


def _unexpected(error: Exception) -> int:
    """An error nobody foresaw: its kind and place in one line, the traceback with --debug."""
    import errno
    import traceback

    from ownlm.console import output

    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        text = f"{error.filename or 'output'}: the disk is full. What was complete is kept.\nTry: free some space, then run the same command again"
    elif isinstance(error, OSError) and error.filename:
        text = f"{error.filename}: {error.strerror}."
    elif isinstance(error, MemoryError):
        text = "out of memory.\nTry: a smaller --size, --context or --per-device-train-batch-size"
    else:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        text = f"{type(error).__name__}: {error} ({frame.filename}:{frame.lineno}).\nTry: the same command with --debug"
    output.console().print(text, markup=False)
    return EXIT_BROKE


def run() -> None:
    """Entry point of `python -m ownlm`."""
    sys.exit(main())
