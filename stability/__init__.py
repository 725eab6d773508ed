"""Is an LLM serving fleet stable under its workload, by how much, what binds, and what to change?"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
