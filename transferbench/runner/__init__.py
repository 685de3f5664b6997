"""From options to a finished run folder.

The stages, in the order of a run; each hands its result to the next:
``request`` (what was requested) -> ``planning`` -> ``schedule`` and ``execute`` -> ``collect``
(reads the store) -> ``transferbench.claims.judge`` -> ``write``.
"""

from __future__ import annotations
