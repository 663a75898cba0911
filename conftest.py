"""For all that pytest runs here, tests and the examples of docstrings alike; small worlds are in tests/conftest.py."""

import doctest
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

collect_ignore_glob = ["prockd/students/examples/*"]  # scripts that read the files beside them as soon as they are run

torch.set_num_threads(1)  # these networks are so small that a second thread only adds waiting

_from_module = doctest.DocTestFinder._from_module


def from_module(self: doctest.DocTestFinder, module: object, example: object) -> bool:
    """Whether an object is defined in a module.

    jaxtyping's import hook wraps functions in those of its own module, and doctest would pass over them without a word.
    """
    return bool(_from_module(self, module, inspect.unwrap(example) if inspect.isroutine(example) else example))


doctest.DocTestFinder._from_module = from_module  # type: ignore[method-assign]


@pytest.fixture(scope="session", autouse=True)
def cache_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Nothing is read from the user's cache, or left there."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("PROCKD_CACHE", str(folder))
        yield folder


@pytest.fixture(autouse=True)
def folder_of_an_example(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """An example that writes files writes them to a temporary folder."""
    if isinstance(request.node, pytest.DoctestItem):
        monkeypatch.chdir(request.getfixturevalue("tmp_path"))
