"""`python -m flowbench` is the same as `flowbench`."""

from flowbench.cli import main

main()
