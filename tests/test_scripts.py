"""The widgets' scripts, where node is installed: what their functions compute, and that browsers can load them."""

import shutil
import subprocess
from pathlib import Path

import pytest
from prockd_widgets.assets import SCRIPTS, STATIC, script

ROOT = Path(__file__).parents[1]
NODE = shutil.which("node")

pytestmark = pytest.mark.skipif(NODE is None, reason="node is not installed")


def node(*arguments: str, text: str | None = None) -> str:
    """What node prints; it must not fail."""
    assert NODE is not None
    done = subprocess.run([NODE, *arguments], cwd=ROOT, input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_functions_of_the_scripts_compute_what_they_say():
    printed = node("--test", "--test-reporter=tap", *sorted(map(str, (ROOT / "tests" / "js").glob("*.test.mjs"))))
    assert "# fail 0" in printed
    assert "# pass 0" not in printed


@pytest.mark.parametrize("widget", SCRIPTS)
def test_a_script_is_one_es_module(widget, tmp_path):
    path = tmp_path / f"{widget}.mjs"
    path.write_text(script(widget), encoding="utf-8")
    printed = node("--input-type=module", text=f"import w from {path.as_uri()!r}; console.log(typeof w.render)")
    assert printed.strip() == "function"


def test_every_file_of_the_scripts_is_short_enough_to_read():
    long = {path.name: lines for path in STATIC.glob("*.js") if (lines := path.read_text().count("\n")) > 400}
    assert long == {}
