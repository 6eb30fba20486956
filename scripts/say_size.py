"""Before torch is installed: say how large it is, and how to get the small one. Prints, changes nothing."""

import importlib.util
import platform
import shutil

if importlib.util.find_spec("torch") is None:
    print("Installing torch 2.13.0 and the rest (a few minutes the first time).")
    if platform.system() == "Linux" and not shutil.which("nvidia-smi"):
        print(
            "No NVIDIA card was found. On Linux the default torch brings about 3 GB of CUDA libraries.\n"
            "For the CPU-only build (about 200 MB) press Ctrl-C and type:\n"
            "  python3 -m venv .venv && .venv/bin/pip install uv && "
            ".venv/bin/uv pip install --python .venv/bin/python --torch-backend=cpu torch==2.13.0\n"
            "then the same make command again. (Where pip is set up with a CPU build, it takes that.)"
        )
