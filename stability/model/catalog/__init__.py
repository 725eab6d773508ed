"""Known GPUs, models, workloads and step-time laws, and replicas built from them.

Nothing is read before it is asked for. Names are found whatever their case, under their aliases and with or without an
organisation in front ("meta-llama/Llama-3.1-8B"). Every record says where its numbers come from.
"""

from .fallback import Efficiency as Efficiency
from .fallback import roofline as roofline
from .fallback_errors import RooflineError as RooflineError
from .fallback_errors import roofline_errors as roofline_errors
from .gpus import Gpu as Gpu
from .gpus import gpu as gpu
from .gpus import gpus as gpus
from .laws import FitQuality as FitQuality
from .laws import LawRecord as LawRecord
from .laws import find_law as find_law
from .laws import laws as laws
from .memory import activation_reserve as activation_reserve
from .memory import kv_capacity as kv_capacity
from .models import Model as Model
from .models import model as model
from .models import models as models
from .replicas import replica as replica
from .workloads import LengthMoments as LengthMoments
from .workloads import WorkloadRecord as WorkloadRecord
from .workloads import lengths as lengths
from .workloads import workload as workload
from .workloads import workloads as workloads
