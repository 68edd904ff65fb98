"""Measures over a folder, kept as they are made: rows, numbers, reports."""
