"""Choose which latent size goes with which noise level, move between sizes, and sample scale by scale."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
