"""From a cache to a student."""
