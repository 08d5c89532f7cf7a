"""``python -m l2view``: the command line."""

from l2view.cli import main

if __name__ == "__main__":
    main()
