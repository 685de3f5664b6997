"""``python -m transferbench`` is the command ``transferbench``."""

from __future__ import annotations

from transferbench.cli import main

if __name__ == "__main__":
    main()
