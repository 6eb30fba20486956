"""How long `ownlm --help` takes: the median of 20 runs of the installed command. Bar: 0.3 s.

python bench/help_time.py
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import time

REPEATS = 20


def main() -> int:
    """Print the median, fastest and slowest time; exit 1 above the bar."""
    installed = shutil.which("ownlm")
    command = [installed] if installed else [sys.executable, "-m", "ownlm"]
    seconds = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        subprocess.run([*command, "--help"], stdout=subprocess.DEVNULL, check=True)
        seconds.append(time.perf_counter() - start)
    median = statistics.median(seconds)
    spread = f"fastest {min(seconds):.3f}, slowest {max(seconds):.3f}, n = {REPEATS}"
    print(f"ownlm --help: median {median:.3f} s ({spread})")
    return 0 if median <= 0.3 else 1


if __name__ == "__main__":
    sys.exit(main())
