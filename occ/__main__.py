"""``python -m occ``: the same as the command ``occ``."""

from occ.cli import main

if __name__ == "__main__":
    main()
