"""How a command ends: its errors, and signals that stop it, are one clear line each."""

import io
import os
import re
import shlex
import signal
import sys
import time
import warnings
from contextlib import suppress
from datetime import timedelta
from typing import Any

import typer
from typer.core import TyperGroup

from prockd.interrupts import Terminated, terminable


class OneLineErrors(TyperGroup):
    """Commands whose errors are one clear line and exit code 2; ``prockd --debug`` shows where they came from.

    Ctrl-C and SIGTERM are one line too, with what is kept and the command to go on, and exit codes 130 and 143.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Keep the words as they were typed."""
        ctx.meta["words"] = list(args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        debug = ctx.params.get("debug")
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):  # cp1252 and others have no letter for all that is said
                stream.reconfigure(errors="replace")
        if not sys.stderr.isatty():  # where a bar cannot move, each of its moves is a line
            os.environ.update(
                {f"TQDM_{name}INTERVAL": os.environ.get(f"TQDM_{name}INTERVAL", "60") for name in ("MIN", "MAX")}
            )
        try:
            with terminable(), warnings.catch_warnings():
                if not debug:
                    warnings.showwarning = show_warning
                    # they are what a command has to say: PYTHONWARNINGS=ignore is meant for others
                    warnings.filterwarnings("default", category=UserWarning, module=r"prockd\.")
                return super().invoke(ctx)
        except KeyboardInterrupt as stop:
            if debug:
                raise
            tell(stop, ctx.meta["words"])
            raise typer.Exit(143 if isinstance(stop, Terminated) else 130) from None
        except (ImportError, OSError, ValueError, RuntimeError, FloatingPointError) as error:
            # prockd's own RuntimeErrors are told by the module's name: importing them would load PyTorch for --help
            fault = isinstance(error, RuntimeError | FloatingPointError) and type(error).__module__[:7] != "prockd."
            count = os.environ.get("WORLD_SIZE", "1")
            if fault and not debug and count != "1" and re.search("gloo|NCCL", str(error)):  # what links processes
                error.add_note(f"another of {count} processes has ended, and said why if it could")
                tell(error, ctx.meta["words"])
                raise typer.Exit(1) from None
            if debug or fault:
                raise
            remedy = (
                f"; {told_of(error)}; go on with: {again(ctx.meta['words'], error)}"
                if hasattr(error, "__notes__")
                else ""
            )
            typer.secho(f"prockd: {error}{remedy}", fg="red", err=True)
            raise typer.Exit(2) from error


def tell(stop: BaseException, words: list[str]) -> None:
    """What is kept and the command to go on; of several processes one speaks."""
    is_first = os.environ.get("RANK", "0") == "0"
    if os.environ.get("WORLD_SIZE", "1") != "1":
        from torch.distributed import TCPStore  # type: ignore[attr-defined]

        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # torchrun sends it to all, and this one ends by itself
        host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        if not is_first and isinstance(stop, KeyboardInterrupt):
            time.sleep(1)  # the main one, which keeps checkpoints, has more to say
        with suppress(RuntimeError):  # it may be gone: the first that comes to where all met speaks
            is_first = TCPStore(host, port, timeout=timedelta(seconds=5)).add("prockd told", 1) == 1
    if is_first:
        told = f"stopped: {told_of(stop)}; go on with: {again(words, stop)}"
        typer.secho(f"prockd: {told}", fg="yellow", err=True)


def told_of(stop: BaseException) -> str:
    """What is kept, as a run noted it; else what is true of every command."""
    usual = ["no file is left half written, and what was finished before is in the cache"]
    return "; ".join(getattr(stop, "__notes__", usual))


def again(words: list[str], stop: BaseException) -> str:
    """The command that goes on: a run that was begun is resumed."""
    if words[:1] == ["distill"] and hasattr(stop, "__notes__"):
        words = [*(word for word in words if word not in ("--overwrite", "--resume")), "--resume"]
    count = os.environ.get("WORLD_SIZE", "1")
    start = ["prockd"] if count == "1" else ["torchrun", "--standalone", "--nproc_per_node", count, "-m", "prockd"]
    return shlex.join([*start, *words])


def show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """A warning as one line, without the place in the code that gave it."""
    typer.secho(f"prockd: {' '.join(str(message).split())}", fg="yellow", err=True)
