"""Measure the spectra of latents, see which noise level hides which frequencies, and design scale schedules by it."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
