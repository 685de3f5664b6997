"""The checks of a backbone that train it, by the engine's own steps and evaluations.

Shape letters: N images, C channels, H height, W width, D features, K classes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from unittest import SkipTest

import torch

from transferbench.conformance.cases import not_finite
from transferbench.conformance.checks import Violation, defined_in, refuse_any
from transferbench.networks.modules import (
    eval_mode,
    normalises_by_batch,
    partition,
)
from transferbench.networks.sharing import refuse_computed_weights
from transferbench.registry.blame import cause
from transferbench.suite import Recipe
from transferbench.training import Execution, Training, evaluate, model_outputs, random_task

if TYPE_CHECKING:
    from transferbench.conformance.backbones import BackboneCase

__all__ = ["CHECKS"]

CPU = Execution(torch.device("cpu"))
BATCH = 4
RECIPE = {"learning_rate": 1e-3, "epochs": 1, "batch_size": BATCH, "gradient_clip": 1.0}


def check_it_gives_logits_in_training_mode(case: BackboneCase) -> None:
    """One tensor (N, K) as in eval mode, without auxiliary outputs."""
    case.refuse_other_logits(case.build(1).train()(case.images()), " in training mode")


def check_every_parameter_gets_a_finite_gradient(case: BackboneCase) -> None:
    """No parameter is unused; a gradient of zero is allowed (Fixup starts so)."""
    net = case.build(1)
    trained = {name: p for name, p in net.named_parameters() if p.requires_grad}
    if not trained:
        raise Violation("no parameter requires a gradient", "build the network trainable")
    case.backward(net)
    gradients = {name: p.grad for name, p in trained.items() if p.grad is not None}
    refuse_any(trained.keys() - gradients.keys(), "get no gradient",
               "use them in forward, or do not register them")  # fmt: skip
    sparse = [name for name, gradient in gradients.items() if gradient.layout != torch.strided]
    refuse_any(sparse, "get sparse gradients, which no optimizer here takes",
               "build the layer with sparse=False")  # fmt: skip
    refuse_any(not_finite(gradients), "get gradients that are not finite",
               "look at divisions and roots of zero")  # fmt: skip


def check_it_is_trained_and_evaluated_by_the_engine(case: BackboneCase) -> None:
    """A step of each optimizer, and an evaluation, on images that are channels_last."""
    for optimizer in ("sgd", "adamw"):
        _train_and_evaluate(case, {"optimizer": optimizer})


def check_it_is_trained_in_bf16(case: BackboneCase) -> None:
    """The same under autocast, which recipes may ask for with ``precision: bf16``."""
    _train_and_evaluate(case, {"optimizer": "sgd", "precision": "bf16"})


def _train_and_evaluate(case: BackboneCase, changes: dict[str, Any]) -> None:
    net = case.build(1).to(memory_format=torch.channels_last)
    recipe = Recipe.model_validate(RECIPE | changes)
    data = random_task(BATCH, (case.size, case.size, 3), case.classes, CPU.device)
    training = Training(net, data, recipe, CPU, case.spec.rate_factors)
    training.step(torch.arange(BATCH), torch.Generator().manual_seed(0))
    weights = {name: weight.detach() for name, weight in net.named_parameters()}
    refuse_any(not_finite(weights), f"are not finite after a step of {recipe.optimizer}",
               "look at the initialization, and at divisions and roots of zero")  # fmt: skip
    evaluate(net, data.test, data, CPU, recipe.precision)
    model_outputs(net, case.spec.head(net), data.test.pipeline, CPU)


def check_one_image_is_a_batch(case: BackboneCase) -> None:
    """Unless it normalises by statistics of the batch: a plan then says that it needs two."""
    net = case.build(1).train()
    if normalises_by_batch(net) or case.spec.batch_statistics(case.params):
        raise SkipTest("it normalises by statistics of its batch")
    try:
        net(case.images(1))
    except Exception as error:
        raise Violation(
            f"it fails for a batch of one image: {cause(error)}",
            "keep the first dimension, that of the batch, in every shape",
        ) from error


def check_modules_share_no_weights(case: BackboneCase) -> None:
    """Neither at first nor after a step, nor by computing a weight from another module's."""
    net = case.build(1)
    case.backward(net)
    modules = partition(case.spec, net)
    with eval_mode(net):
        refuse_computed_weights(case.spec, net, modules)


CHECKS = tuple(defined_in(__name__))
