"""The core works without the extras, and what needs one says which."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from prockd._extras import needs_extra
from prockd.evaluation.embed import embed_2d
from prockd.tasks import Detection

ROOT = Path(__file__).parents[1]
EXTRAS = ("IPython", "anywidget", "beartype", "ipywidgets", "jupyterlab", "numba", "onnx", "onnxruntime", "onnxscript",
          "pandas", "pycocotools", "pytest", "traitlets", "umap")  # fmt: skip
CORE_ONLY = f"""
import importlib, pkgutil, sys
sys.modules |= dict.fromkeys({EXTRAS!r})
import prockd
for module in pkgutil.walk_packages(prockd.__path__, "prockd."):
    if module.name != "prockd.__main__":
        importlib.import_module(module.name)
for name in prockd.__all__:
    getattr(prockd, name)
import prockd_widgets
try:
    prockd_widgets.PatchLens
except ImportError as error:
    print(error)
"""


@pytest.fixture
def block(monkeypatch):
    """Makes packages look as if they were not installed."""
    return lambda *names: [monkeypatch.setitem(sys.modules, name, None) for name in names]


@pytest.mark.slow
def test_every_module_of_prockd_can_be_imported_without_any_extra_and_widgets_name_theirs():
    done = subprocess.run([sys.executable, "-c", CORE_ONLY], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("prockd_widgets.PatchLens needs anywidget, which is not installed: pip install 'pro")


def test_umap_names_the_extra_lab(block, tmp_path):
    block("umap")
    vectors = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
    with pytest.raises(ImportError, match=r"UMAP needs umap, which is not installed: pip install 'prockd\[lab\]'"):
        embed_2d(vectors, root=tmp_path, progress=False)


def test_a_detector_names_the_extra_detection_before_it_is_trained(block, packed):
    block("pycocotools")
    with pytest.raises(ImportError, match=r"precision needs pycocotools, .*: pip install 'prockd\[detection\]'"):
        Detection(2).check(packed)


def test_a_fault_inside_prockd_is_no_missing_extra():
    with pytest.raises(ModuleNotFoundError, match=r"No module named 'prockd.nowhere'"), needs_extra("lab", "This"):
        import prockd.nowhere  # noqa: F401
