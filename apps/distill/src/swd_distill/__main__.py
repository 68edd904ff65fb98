"""`python -m swd_distill`, for launchers."""

from swd_distill.cli import main

main()
