"""`python -m ownlm`, and `torchrun -m ownlm`."""

from ownlm.cli import run

if __name__ == "__main__":
    run()
