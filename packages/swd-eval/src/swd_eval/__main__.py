"""`python -m swd_eval`."""

from swd_eval.cli import main

main()
