"""The nodes (`nodes`) and what they compute (`core`), which needs torch alone."""
