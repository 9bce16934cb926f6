"""`python -m spoolproof` is `spoolproof`."""

from spoolproof.cli import main

if __name__ == "__main__":
    main()
