"""The numbers that the paper printed or plotted, to stand beside those of a run.

Neyshabur, Sedghi, Zhang 2020, arXiv 2008.11687 (version 2): a Fixup ResNet-50 pre-trained on
ImageNet at 224 px, fine-tuned on CheXpert and on three domains of DomainNet. ``printed`` numbers
stand in a table, a caption or the text; ``digitised`` ones were read off a figure, to about 1 in
the unit of their column.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

__all__ = [
    "BARRIERS",
    "BASINS",
    "CHECKPOINTS",
    "CKA",
    "CURVES",
    "DISTANCES",
    "REWINDING",
    "SHUFFLING",
    "Published",
]


@dataclass(frozen=True)
class Published:
    """One table of the paper's numbers."""

    where: str
    to: str
    how: Literal["printed", "digitised", "printed drops, digitised accuracies"]
    head: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]

    @property
    def caption(self) -> str:
        """Whose numbers these are."""
        return f"Published (ImageNet \N{RIGHTWARDS ARROW} {self.to}): {self.where}, {self.how}"


CURVES = Published(
    "Figure 2",
    "CheXpert, DomainNet",
    "digitised",
    ("target", "P-T, rate 0.02", "P-T, rate 0.1", "RI-T, rate 0.02", "RI-T, rate 0.1"),
    (
        ("CheXpert, AUC, best", ".787", "diverged", ".77", ".77"),
        ("CheXpert, AUC, final", ".735", "diverged", ".70", ".70"),
        ("real, accuracy in %", "78.4", "76", "49", "61.5"),
        ("clipart, accuracy in %", "74", "73", "38", "58"),
        ("quickdraw, accuracy in %", "67", "54", "56.5", "64"),
    ),
)

# Relative drop; then test accuracy and mean train accuracy, each of P-T / RI-T.
SHUFFLED = """\
pixels | 16 | 8.8 / 7.3 | 81 / 47 | 33 | 10.5 / 6.8 | 80 / 15 | 91 | 10.5 / 1 | 83 / 0
1 | 9 | 13.1 / 12.2 | 83 / 46 | 22 | 13.8 / 10.7 | 81 / 27 | 69 | 9.3 / 2.7 | 79 / 2
2 | 3 | 18.5 / 17.9 | 85 / 68 | 23 | 17.5 / 13.4 | 84 / 46 | 30 | 16.5 / 11.4 | 75 / 70
4 | 12 | 26.6 / 23.5 | 89 / 77 | 22 | 23.5 / 18.2 | 87 / 73 | 23 | 24.7 / 19.2 | 88 / 81
7 | 31 | 32.9 / 22.8 | 90 / 79 | 29 | 27.8 / 20.1 | 89 / 76 | 20 | 26.4 / 21.3 | 89 / 85
8 | 34 | 41.6 / 27.6 | 91 / 80 | 33 | 32.2 / 21.4 | 90 / 76 | 23 | 30.3 / 23.5 | 88 / 78
14 | 45 | 52.0 / 28.6 | 93 / 83 | 38 | 40.9 / 25.2 | 92 / 79 | 24 | 33.9 / 25.9 | 92 / 86
16 | 45 | 56.6 / 30.7 | 94 / 80 | 41 | 45.2 / 26.9 | 92 / 77 | 20 | 37.5 / 30.3 | 92 / 86
28 | 52 | 63.1 / 30.0 | 94 / 84 | 46 | 52.5 / 27.8 | 93 / 80 | 25 | 41.4 / 31.5 | 93 / 87
32 | 45 | 65.5 / 35.8 | 94 / 81 | 45 | 56.3 / 30.7 | 94 / 77 | 18 | 44.7 / 36.8 | 93 / 86
56 | 52 | 69.9 / 33.2 | 95 / 85 | 49 | 62.6 / 31.7 | 94 / 82 | 26 | 50.5 / 37.5 | 93 / 87
112 | 45 | 74.4 / 41.1 | 95 / 86 | 43 | 69.9 / 39.4 | 94 / 83 | 24 | 60.0 / 45.7 | 94 / 88
224 | 42 | 76.9 / 44.7 | 95 / 86 | 40 | 73.2 / 44.3 | 94 / 83 | 22 | 64.5 / 50.5 | 94 / 88
"""
"""A line for each block size: the three numbers of real, then of clipart, then of quickdraw."""

SHUFFLING = Published(
    "Figure 3",
    "DomainNet",
    "printed drops, digitised accuracies",
    (
        "block",
        *(
            f"{target} {what}"
            for target in ("real", "clipart", "quickdraw")
            for what in ("drop, %", "test, %", "speed, %")
        ),
    ),
    tuple(tuple(line.split(" | ")) for line in SHUFFLED.splitlines()),
)

CKA = Published(
    "Table 1",
    "CheXpert",
    "printed",
    ("module", "P-T & P", "P-T & P-T", "P-T & RI-T", "RI-T & RI-T"),
    (
        ("conv1", ".6225", ".6710", ".0036", ".0016"),
        ("layer1", ".4592", ".8230", ".0011", ".0088"),
        ("layer2", ".2896", ".6052", ".0022", ".0004"),
        ("layer3", ".1877", ".4089", ".0003", ".0004"),
        ("layer4", ".0453", ".1628", ".0808", ".0424"),
    ),
)

DISTANCES = Published(
    "Table 2",
    "CheXpert, DomainNet",
    "printed",
    ("target", "P-T & P-T", "RI-T & RI-T", "P-T & P", "RI-T & P"),
    (
        ("CheXpert", "200.12", "255.34", "237.31", "598.19"),
        ("clipart", "178.07", "822.43", "157.19", "811.87"),
        ("quickdraw", "218.52", "776.76", "195.44", "785.22"),
        ("real", "193.45", "815.08", "164.83", "796.80"),
    ),
)

BARRIERS = Published(
    "Figures 4 and 16",
    "CheXpert, DomainNet",
    "digitised",
    ("target", "pair", "ends", "midpoint"),
    (
        ("real, accuracy in %", "P-T & P-T", "78.4", "79.3"),
        ("real, accuracy in %", "RI-T & RI-T", "61.5", "0.5"),
        ("real, accuracy in %", "P-T & RI-T", "78.4, 61.5", "0.5"),
        ("real, accuracy in %", "RI-T & RI-T, same start", "\N{EN DASH}", "6.5"),
        ("clipart, accuracy in %", "RI-T & RI-T, same start", "\N{EN DASH}", "5.5"),
        ("quickdraw, accuracy in %", "RI-T & RI-T, same start", "\N{EN DASH}", "16"),
        ("CheXpert, AUC, best", "P-T & P-T", ".787", ".787"),
        ("CheXpert, AUC, final", "P-T & P-T", ".735", ".75"),
        ("CheXpert, AUC, best", "RI-T & RI-T", ".77", ".53"),
        ("CheXpert, AUC, final", "RI-T & RI-T", ".70", ".52"),
        ("CheXpert, AUC", "RI-T best & final, one run", ".77, .70", ".635"),
    ),
)

BASINS = Published(
    "Section 3.3",
    "DomainNet",
    "printed",
    ("target", "pair", "\N{GREEK SMALL LETTER EPSILON}", "\N{GREEK SMALL LETTER DELTA}"),
    (
        ("real", "P-T & P-T", "0.0038", "49.14"),
        ("clipart", "P-T & P-T", "0.0054", "98.28"),
        ("quickdraw", "P-T & P-T", "0.0034", "49.14"),
    ),
)

REWINDING = Published(
    "Figure 5",
    "CheXpert",
    "digitised",
    ("module rewound", "P-T, rate 0.02: AUC", "RI-T, rate 0.02: AUC", "RI-T, rate 0.1: AUC"),
    (
        ("none", "\N{EN DASH}", ".703", ".702"),
        ("conv1", ".715 to .735", ".507", ".561"),
        ("layer1.0", ".715 to .735", ".638", "\N{EN DASH}"),
        ("layer2.0", ".715 to .735", ".655", ".658"),
        ("layer3.0", ".715 to .735", ".641", ".543"),
        ("layer4.0", ".715 to .735", "\N{EN DASH}", ".609"),
        ("layer4.1", ".715 to .735", "\N{EN DASH}", ".654"),
        ("layer4.2", ".71", ".636", "\N{EN DASH}"),
        ("fc", ".693", "\N{EN DASH}", "\N{EN DASH}"),
    ),
)

CHECKPOINTS = Published(
    "Figure 7",
    "DomainNet",
    "digitised",
    (
        "epoch of pre-training",
        "real, %",
        "clipart, %",
        "quickdraw, %",
        "speed on real / clipart / quickdraw, %",
        "ImageNet top-1, %",
    ),
    (
        ("0", "61.2", "below 60", "64.3", "70 to 73", "\N{EN DASH}"),
        ("1", "61.8", "below 60", "64.6", "\N{EN DASH}", "\N{EN DASH}"),
        ("2", "64.0", "61", "64.9", "\N{EN DASH}", "\N{EN DASH}"),
        ("5", "69.6", "67", "66.0", "\N{EN DASH}", "\N{EN DASH}"),
        ("10", "73.5", "70.6", "66.7", "\N{EN DASH}", "50"),
        ("29", "76.2", "72.5", "66.9", "\N{EN DASH}", "56"),
        ("30", "76.5", "72.8", "66.8", "\N{EN DASH}", "\N{EN DASH}"),
        ("31", "76.8", "72.8", "66.8", "\N{EN DASH}", "68"),
        ("59", "78.4", "74.2", "67.2", "\N{EN DASH}", "71"),
        ("60", "78.3", "74.1", "67.2", "\N{EN DASH}", "\N{EN DASH}"),
        ("61", "78.3", "74.1", "67.3", "\N{EN DASH}", "\N{EN DASH}"),
        ("90", "78.4", "73.9", "66.9", "93.3 / 92.5 / 86.5", "75"),
    ),
)
