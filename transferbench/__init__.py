"""What is being transferred in transfer learning? A plugin-based benchmark."""

from __future__ import annotations

__all__ = ["__version__"]

__version__ = "0.1.0"
