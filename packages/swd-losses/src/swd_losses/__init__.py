"""Distribution matching losses for diffusion distillation: MMD on features, DMD2, GAN."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
