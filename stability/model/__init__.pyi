from . import catalog as catalog
from . import iteration as iteration
from . import lengths as lengths
