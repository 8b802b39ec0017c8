"""``python -m occ``, and the command ``occ``."""

import sys


def main() -> None:
    """Run the command line and leave with its exit code; Ctrl-C ends it without a word, while it loads as well."""
    try:
        from occ.cli import main as run  # noqa: PLC0415 - it may take long enough to be interrupted

        run()
    except KeyboardInterrupt:
        sys.exit(130)


if __name__ == "__main__":
    main()
