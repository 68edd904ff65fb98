"""Learned scores of one image or video and its prompt."""
