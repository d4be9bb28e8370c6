"""`python -m infc` is `infc`."""

from infc.cli import main

main()
