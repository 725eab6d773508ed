"""The command line: `stability COMMAND`.

Exit codes: 0 the answer is yes (stable, every target met), 1 it is no, 2 bad input, 3 undetermined, 4 internal error,
130 interrupted.
"""

from .main import main as main
