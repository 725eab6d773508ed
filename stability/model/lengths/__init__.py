"""Length distributions: of one length (marginal) and of (prompt, output) pairs (joint)."""

from .continuous import Gamma as Gamma
from .continuous import LogNormal as LogNormal
from .continuous import Pareto as Pareto
from .continuous import Weibull as Weibull
from .joint import Empirical as Empirical
from .joint import GaussianCopula as GaussianCopula
from .joint import Independent as Independent
from .joint import Lengths as Lengths
from .joint import Mixture as Mixture
from .joint import token_array as token_array
from .marginal import Constant as Constant
from .marginal import Discrete as Discrete
from .marginal import Geometric as Geometric
from .marginal import Length as Length
from .marginal import Quantiles as Quantiles
from .marginal import Uniform as Uniform
from .parts import AtomPart as AtomPart
from .parts import ProductPart as ProductPart
