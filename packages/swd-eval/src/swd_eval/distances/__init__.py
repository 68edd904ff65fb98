"""Distances between sets of images or videos, and the features they are measured in."""
