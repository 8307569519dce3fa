"""`python -m ftw` is the command `ftw`."""

from ftw.ui.cli import main

if __name__ == "__main__":
    main()
