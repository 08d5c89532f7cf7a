"""The program ``l2view``, and ``python -m l2view``."""

from __future__ import annotations

from l2view.cli import main as run_command
from l2view.shutdown import exit_code_of, exit_without_finalization


def main() -> None:
    """Run the command, and let the process end with its exit code."""
    try:
        run_command()
    except SystemExit as error:
        exit_without_finalization(exit_code_of(error))
        raise
    except Exception:
        exit_without_finalization(1)
        raise
    exit_without_finalization(0)


if __name__ == "__main__":
    main()
