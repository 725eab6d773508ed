"""Prints the documentation page: `python -m stability.theory.symbolic > docs/theory/derivations.md`."""

import sys

from .catalogue import markdown

if __name__ == "__main__":
    sys.stdout.write(markdown())
