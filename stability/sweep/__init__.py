"""Many plans and seeds at once: a grid file in, one row per point and seed out, in parallel and resumable."""

from .backends import backend as backend
from .grid import Grid as Grid
from .grid import example_grid as example_grid
from .grid import grid_from_text as grid_from_text
from .grid import read_grid as read_grid
from .rows import read as read
from .run import SweepResult as SweepResult
from .run import run as run
