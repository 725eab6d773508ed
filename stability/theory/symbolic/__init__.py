"""Derivations in sympy of the formulas that the package computes with: `from stability.theory import symbolic`.

Each function returns a `Derivation`: its steps from the definitions to the result, LaTeX, and the result as a function of numbers.
`import stability` does not load this package, nor sympy.
"""

from .capacities import bound as bound
from .capacities import capacity as capacity
from .capacities import eviction_waste as eviction_waste
from .capacities import gate_capacity as gate_capacity
from .capacities import load as load
from .capacities import packing_slack as packing_slack
from .catalogue import CATALOGUE as CATALOGUE
from .catalogue import derive_all as derive_all
from .derivation import Derivation as Derivation
from .derivation import Step as Step
from .drift import blocked_step as blocked_step
from .drift import bounded_set as bounded_set
from .drift import drift_margin as drift_margin
from .drift import proved_capacity as proved_capacity
from .drift import return_time as return_time
from .families import in_families as in_families
from .families import length_moment as length_moment
from .families import length_transform as length_transform
from .flow_balance import inter_token_latency as inter_token_latency
from .flow_balance import iteration_time as iteration_time
from .flow_balance import kv_in_use as kv_in_use
from .flow_balance import mean_work as mean_work
from .flow_balance import prefill_context as prefill_context
from .flow_balance import reads as reads
from .flow_balance import work as work
from .geometric_ode import equations as equations
from .geometric_ode import equilibrium as equilibrium
from .geometric_ode import jacobian as jacobian
from .geometric_ode import routh_hurwitz as routh_hurwitz
from .geometric_ode import slowest_mode as slowest_mode
from .geometric_ode import stability_conditions as stability_conditions
from .lundberg import age_transform as age_transform
from .lundberg import evictions_per_request as evictions_per_request
from .lundberg import exponent as exponent
from .lundberg import exponent_expansion as exponent_expansion
from .lundberg import first_eviction as first_eviction
from .lundberg import free_memory as free_memory
from .lundberg import generated_when_evicted as generated_when_evicted
from .lundberg import ladder_height as ladder_height
from .lundberg import laplace_exponent as laplace_exponent
from .lundberg import next_eviction as next_eviction
from .lundberg import slack_when_evicted as slack_when_evicted
from .sensitivities import elasticity as elasticity
from .sensitivities import sensitivity as sensitivity
from .sensitivities import time_balance as time_balance
from .volumes import grown as grown
from .volumes import held_products as held_products
from .volumes import iterations as iterations
from .volumes import mean_volume as mean_volume
from .volumes import volume as volume
