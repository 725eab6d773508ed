"""`python -m stability`: the command line."""

from .cli import main

main()
