"""Names of choices that losses take. They stand apart from torch: a recipe is data, and a command line reads it."""

from typing import Literal, TypeAlias

Pooling: TypeAlias = Literal["image", "batch"]
"""Means of which MMD compares: each image's tokens, or all of the batch's."""
HeadPool: TypeAlias = Literal["tokens", "logits"]
"""What becomes one number of an image: the mean of its tokens, or of their logits."""
Weighting: TypeAlias = Literal["x0", "velocity"]
"""In which of the two a denoising loss is a mean squared error."""
