"""Tiny autoencoders, which stand in for a model's own: from the files of their author."""
