"""The command ``transferbench``, which ``python -m transferbench`` is too."""

from __future__ import annotations

import signal

__all__ = ["main"]


def main() -> None:
    """Run the command line; an interrupt before and after it ends the process without a word."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        # While modules are imported, Python's own handler would show a traceback.
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from transferbench.cli import main as run_command

    run_command()


if __name__ == "__main__":
    main()
