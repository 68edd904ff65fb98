"""A blind side-by-side study with raters, as in appendix H of the paper."""
