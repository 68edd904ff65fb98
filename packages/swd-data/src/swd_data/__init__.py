"""Images, clips, prompts and files of users, in and out: read once, the same for every command."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
