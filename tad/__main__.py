"""`python -m tad`."""

from tad.cli import main

main()
