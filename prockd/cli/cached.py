"""``prockd cache ...``: look through what is kept of images and teachers, clear it, move it."""

from pathlib import Path
from typing import Annotated, Any

import typer
from typer import Argument, Option
from typer.core import TyperGroup

from prockd.settings.knobs import ConfigError


class ListFirst(TyperGroup):
    """Commands of which ``list`` is meant where none is named."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """The words of the command line."""
        return super().parse_args(ctx, args or ["list"])


app = typer.Typer(
    cls=ListFirst, help="Look through what is kept of images and teachers, clear it, or move it to another disk."
)
Kind = Annotated[list[str] | None, Option("--kind", help="Of this kind alone; may be repeated.")]
OlderThan = Annotated[str, Option(help="Built at least so long ago: 90m, 12h, 30d, 2w.")]


@app.command("list")
def list_cache() -> None:
    """Tell what the cache keeps: kind by kind, how many entries, how large, how old."""
    from prockd.cache import cache_root
    from prockd.evaluation.tables import format_table
    from prockd.kept import entries

    found, rows = entries(), []
    for kind in dict.fromkeys(entry.kind for entry in found):
        own = [entry for entry in found if entry.kind == kind]
        days = [entry.age_s / (24 * 3600) for entry in own]
        rows.append({
            "kind": kind, "entries": len(own), "MB": f"{sum(entry.bytes for entry in own) / 1e6:,.1f}",
            "newest, days": f"{min(days):.1f}", "oldest, days": f"{max(days):.1f}",
        })  # fmt: skip
    total = f"{len(found)} entries, {sum(entry.bytes for entry in found) / 1e6:,.1f} MB in {cache_root()}"
    typer.echo(f"{format_table(rows)}\n\n{total}" if rows else total)


@app.command(epilog="`prockd cache clear --kind features --older-than 30d`\n\n`prockd cache clear --all`")
def clear(
    kind: Kind = None,
    older_than: OlderThan = "0m",
    all_: Annotated[bool, Option("--all", help="Everything, where neither kind nor age is said.")] = False,
) -> None:
    """Remove entries by kind, age or both; what is needed again is built again, and a build that runs is left alone."""
    from prockd.kept import chosen, entries, remove, seconds

    age = seconds(older_than)
    if not (kind or age or all_):
        raise ConfigError("say what to clear: --kind, --older-than, or --all")
    remove(found := chosen(entries(), kind or (), age))
    typer.echo(f"removed {len(found)} entries, {sum(entry.bytes for entry in found) / 1e6:,.1f} MB")


@app.command(epilog="`prockd cache verify --kind features`")
def verify(kind: Kind = None, older_than: OlderThan = "0m") -> None:
    """Compare every byte with its checksum; damaged entries are removed, and built again when they are needed."""
    from prockd.cache import is_whole
    from prockd.kept import chosen, entries, seconds

    found = chosen(entries(), kind or (), seconds(older_than))
    damaged = [entry for entry in found if not is_whole(entry.path)]
    typer.echo(f"{len(found)} entries, {sum(e.bytes for e in found) / 1e6:,.1f} MB: {len(damaged)} damaged and removed")


@app.command(epilog="`prockd cache move /data/prockd`, then `export PROCKD_CACHE=/data/prockd`")
def move(
    folder: Annotated[Path, Argument(help="A folder, which may be on another disk.")],
    kind: Kind = None,
    older_than: OlderThan = "0m",
) -> None:
    """Move entries to another folder, each of them whole; a build that runs stays where it is."""
    from prockd.cache import cache_root
    from prockd.kept import chosen, entries, seconds
    from prockd.kept import move as move_entries

    if folder.resolve() == cache_root().resolve():
        raise ConfigError(f"{folder} is the cache already")
    count = move_entries(chosen(entries(), kind or (), seconds(older_than)), folder)
    typer.echo(f"moved {count} entries to {folder}; to use them: export PROCKD_CACHE={folder}")
