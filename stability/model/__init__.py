"""The nouns: lengths, workloads, step-time laws, engines, replicas, fleets. No algorithms."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
