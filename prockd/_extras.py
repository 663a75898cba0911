"""What an optional part of prockd needs, and how to install it: one message for all of them."""

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def needs_extra(extra: str, purpose: str) -> Iterator[None]:
    """Imports inside this block belong to an extra of prockd, such as ``lab``.

    Args:
        extra: its name in pyproject.toml.
        purpose: what needs it; begins the message.

    Raises:
        ImportError: one of the imported packages is not installed; the message names it and the extra.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        missing = (error.name or str(error)).partition(".")[0]
        if missing.startswith("prockd"):
            raise
        raise ImportError(
            f"{purpose} needs {missing}, which is not installed: pip install 'prockd[{extra}]' "
            f"(in a checkout: pip install -e '.[{extra}]')",
            name=missing,
        ) from error
