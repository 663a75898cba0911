"""Try a class kit as a room would: check its sums, install it and run its first page, all without a network.

    python tests/try_kit.py KIT

The network is taken away by `unshare` where the system allows it, and by an index and a proxy that are not there.
"""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path


def main(kit: Path) -> None:
    """The command."""
    os.chdir(kit)
    offline = ["unshare", "-rn"] if shutil.which("unshare") else []
    if offline and subprocess.run([*offline, "true"]).returncode:
        offline = []
    nowhere = {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9", "PIP_CONFIG_FILE": os.devnull}
    env = {k: v for k, v in os.environ.items() if not k.startswith("PIP_")} | nowhere
    subprocess.run(["sha256sum", "--quiet", "-c", "SHA256SUMS"], check=True)
    start = time.monotonic()
    subprocess.run([*offline, "sh", "install.sh"], env=env, check=True)
    print(f"installed in {time.monotonic() - start:.0f} s, network {'off' if offline else 'not reachable by proxy'}")
    start = time.monotonic()
    page = [
        ".venv/bin/jupyter",
        "nbconvert",
        "--execute",
        "--to",
        "notebook",
        "--stdout",
        "notebooks/00_quickstart.ipynb",
    ]
    env |= {"PROCKD_CACHE": str(Path("cache").resolve())}
    # a kernel talks to its page over the loopback, which a bare network namespace has not raised
    up = [*offline, "sh", "-c", 'ip link set lo up 2>/dev/null; exec "$@"', "sh"] if offline else []
    subprocess.run([*up, *page], env=env, check=True, stdout=subprocess.DEVNULL)
    print(f"the quickstart ran to its end in {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
