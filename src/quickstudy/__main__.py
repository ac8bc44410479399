"""`python -m quickstudy` is the command `quickstudy`."""

from quickstudy.cli import main

main()
