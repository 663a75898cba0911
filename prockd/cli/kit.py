"""``prockd class-kit``: one folder for a room without a network."""

import hashlib
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer
from typer import Argument, Option

import prockd
from prockd.settings.knobs import ConfigError

app = typer.Typer()
PLATFORMS = {
    "linux": ("manylinux_2_28_x86_64", "manylinux_2_27_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64"),
    "windows": ("win_amd64",),
    "macos": ("macosx_14_0_arm64", "macosx_13_0_arm64", "macosx_12_0_arm64", "macosx_11_0_arm64"),
}
FILL = """
import prockd as pk
from prockd.runs import open_world
world = open_world(per_class=30, num_discover=400, num_unlabelled=500, num_val=200, num_test=300)
bank = pk.discover(world.source, config=pk.best()[0])
for name in ("train", "unlabelled", "val", "test"):
    world.embedded(name, bank)
size = {"image_px": world.teacher.image_px}
pk.extract_compact(world.teacher, pk.Farmyard("source", "unlabelled", 400, **size))
pk.extract(world.teacher, pk.Farmyard("target", "test", 150, **size), views=("plain",))
animals = pk.pack(pk.Farmyard("target", "test", 300, **size), world.teacher.image_px)
pk.embed_features(bank, world.teacher, animals, views=("plain",))
"""
README = """prockd {version}: the course, for a room without a network
===========================================================
Needs: Python {python} (64 bit), 12 GB of disk, 4 GB of memory. Nothing is fetched.

1. Copy this folder from the stick to the disk.
2. Windows: double-click install.bat, then start.bat.
   macOS, Linux: in a terminal in this folder, sh install.sh, then sh start.sh.
   (Debian, Ubuntu: "apt install python3-venv" comes before, while there is a network.)
3. The browser opens on the first page. Where the machine has no browser, the terminal tells the address.

Did everything arrive? Linux: sha256sum -c SHA256SUMS.  macOS: shasum -a 256 -c SHA256SUMS.
Platforms of these wheels: {platforms}.
"""
POSIX = {
    "install.sh": 'cd "$(dirname "$0")" && "$(command -v python{python} || command -v python3)" -m venv .venv && '
    ".venv/bin/pip install --no-index --find-links wheels 'prockd[lab]=={version}'\n",
    "start.sh": 'cd "$(dirname "$0")" && PROCKD_CACHE="$PWD/cache" exec .venv/bin/jupyter lab '
    '--LabApp.default_url=/lab/tree/notebooks/00_quickstart.ipynb "$@"\n',
}
WINDOWS = {
    "install.bat": 'cd /d "%~dp0"\npy -{python} -m venv .venv\n'
    '.venv\\Scripts\\pip install --no-index --find-links wheels "prockd[lab]=={version}"\npause\n',
    "start.bat": 'cd /d "%~dp0"\nset PROCKD_CACHE=%~dp0cache\n'
    ".venv\\Scripts\\jupyter lab --LabApp.default_url=/lab/tree/notebooks/00_quickstart.ipynb\npause\n",
}


def fetch_wheels(root: Path, wheels: Path, platforms: list[str], python: str, pip_args: list[str]) -> None:
    """Put prockd's wheel and those of all it needs into a folder, for each platform."""
    pip = [sys.executable, "-m", "pip"]
    subprocess.run([*pip, "wheel", "--quiet", "--no-deps", "--wheel-dir", str(wheels), str(root)], check=True)
    own = ["--find-links", str(wheels), f"prockd[lab]=={prockd.__version__}"]
    want = [*pip, "download", "--quiet", "--dest", str(wheels), *own]
    for platform in platforms or [""]:
        tags = [word for tag in PLATFORMS.get(platform, ()) for word in ("--platform", tag)]
        only = ["--only-binary=:all:", "--python-version", python, *tags] if platform else []
        subprocess.run([*want, *only, *pip_args], check=True)


def checksums(folder: Path) -> str:
    """A line a file, as sha256sum reads it."""
    lines = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        with path.open("rb") as file:
            lines.append(f"{hashlib.file_digest(file, 'sha256').hexdigest()}  {path.relative_to(folder).as_posix()}\n")
    return "".join(lines)


@app.command(
    epilog="`prockd class-kit KIT`\n\n`prockd class-kit KIT --platform windows --platform macos --python 3.12`"
)
def class_kit(
    folder: Annotated[Path, Argument(help="A new folder, some GB a platform.")],
    platform: Annotated[
        list[str] | None, Option(help=f"{', '.join(PLATFORMS)}; may be repeated; this machine's where none is named.")
    ] = None,
    python: Annotated[str, Option(help="Of the machines in the room, where platforms are named.")] = (
        f"{sys.version_info[0]}.{sys.version_info[1]}"
    ),
    pip_args: Annotated[str, Option(help="More words for pip, such as another index with PyTorch's CPU wheels.")] = "",
    overwrite: Annotated[bool, Option("--overwrite", help="Make a kit that is there anew.")] = False,
) -> None:
    """Write a folder for a room without a network: wheels, pages, filled cache, launchers, sums; from a checkout."""
    root = Path(prockd.__file__).parents[1]
    if not (root / "notebooks").is_dir():
        raise ConfigError("class-kit takes the pages from a checkout: run it where prockd was installed with pip -e")
    if unknown := set(platform or ()) - set(PLATFORMS):
        raise ConfigError(f"no platform {', '.join(unknown)}: choose of {', '.join(PLATFORMS)}")
    if folder.exists() and any(folder.iterdir()):
        if not overwrite or not (folder / "SHA256SUMS").is_file():
            raise ConfigError(f"{folder} is not empty: name a new folder, or a kit with --overwrite")
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    fetch_wheels(root, folder / "wheels", platform or [], python, shlex.split(pip_args))
    ignore = shutil.ignore_patterns("instructor", "README.md", "*.py", "runs", ".ipynb_checkpoints")
    shutil.copytree(root / "notebooks", folder / "notebooks", ignore=ignore)
    shutil.copytree(root / "benchmarks/results/compare", folder / "benchmarks/results/compare")
    for name in ("LICENSE", "LICENSE-docs", "benchmarks/results/search.md", "data/farmyard/TEACHER.md"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root / name, folder / name)
    cache = os.environ | {"PROCKD_CACHE": str((folder / "cache").resolve())}
    subprocess.run([sys.executable, "-c", FILL], env=cache, check=True)
    told = ", ".join(platform or ["the one it was made on"])
    facts = {"version": prockd.__version__, "python": python, "platforms": told}
    for name, text in {**POSIX, **WINDOWS, "README.txt": README}.items():
        end = "\r\n" if name.endswith(".bat") else "\n"
        (folder / name).write_text(text.format(**facts), "utf-8", newline=end)
    (folder / "SHA256SUMS").write_text(checksums(folder), "utf-8", newline="\n")
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    typer.echo(f"{folder}: {size / 1e9:.1f} GB; copy it as it is, and try it once with the network off")
