"""Samples with a known truth for each kind of interval, to count how often it holds.

A simulation draws replicates or items as its setting says, and gives the interval of one sample, or
the bounds of many at once.
"""

from collections.abc import Iterator

from item_simulations import losses_of_items, mistakes_of_pairs, scores_of_pairs
from network_simulations import image_simulations, network_simulations
from order_simulations import orders
from rank_simulations import rank_simulations
from score_simulations import (
    correlations_of_scores,
    metrics_of_classes,
    metrics_of_labels,
    scores_of_unseen_classes,
    scores_with_few_errors,
    shares_of_classes,
    transferability_scores,
)
from simulated import Simulation
from sum_simulations import differences, means, pairs_of_networks, ratios_of_gains

from transferbench.statistics import bootstrap_mean, exact_share

__all__ = ["SIMULATIONS"]


def items() -> Iterator[Simulation]:
    """Shares and means over test images."""
    for n in (50, 300):
        for share in (0.003, 0.05, 0.5, 0.9, 0.98):
            yield Simulation("exact", f"share {share:g}", n,
                             lambda rng, n=n, p=share: exact_share(int(rng.binomial(n, p)), n),
                             share)  # fmt: skip
        yield Simulation("bootstrap", "mean of uniform values", n,
                         lambda rng, n=n: bootstrap_mean(rng.uniform(size=n),
                                                         int(rng.integers(2**31)), 500),
                         0.5)  # fmt: skip


SIMULATIONS = [
    simulation
    for family in (
        means, differences, pairs_of_networks, ratios_of_gains, orders, network_simulations,
        image_simulations, items, metrics_of_classes, transferability_scores,
        scores_with_few_errors, correlations_of_scores, rank_simulations, metrics_of_labels,
        shares_of_classes, mistakes_of_pairs, losses_of_items, scores_of_pairs,
        scores_of_unseen_classes,
    )
    for simulation in family()
]  # fmt: skip
