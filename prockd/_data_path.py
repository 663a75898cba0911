"""Where the files that ship with the package lie, in a checkout and in an installed wheel."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def data_path(*parts: str) -> Path:
    """Return the path of a shipped data file, such as ``data_path("farmyard", "species.toml")``.

    An installed wheel keeps them in ``prockd/_data/``, a checkout in ``data/``.

    Raises:
        FileNotFoundError: in neither place; the message names both.
    """
    tried = [_PACKAGE.joinpath("_data", *parts), _PACKAGE.parent.joinpath("data", *parts)]
    for path in tried:
        if path.exists():
            return path
    raise FileNotFoundError(f"{'/'.join(parts)} is not among the data of prockd; tried {tried[0]} and {tried[1]}")
