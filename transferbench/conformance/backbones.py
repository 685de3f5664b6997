"""The checks of a backbone: its partition, its head, its randomness and its behaviour.

Shape letters: N images, C channels, H height, W width, D features, K classes.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from itertools import product
from typing import Any
from unittest import SkipTest

import torch
from safetensors.torch import load, save
from torch import Tensor, nn

from transferbench.conformance import backbone_training, cases
from transferbench.conformance.cases import Case, Observation, differing, not_finite, refuse_gap
from transferbench.conformance.checks import Violation, defined_in, listed, refuse_any, shared
from transferbench.conformance.isolation import moved_since, randomness
from transferbench.networks.modules import (
    body_names,
    clone_state,
    head_layers,
    load_state,
    partition,
    refuse_untrainable,
    seeded,
)
from transferbench.registry.blame import cause
from transferbench.registry.numerics import seeded_generators
from transferbench.specs import HEAD, BackboneSpec

__all__ = ["CASE", "CHECKS"]

SIZES = (32, 64, 96, 224)
"""Image sizes tried until the network accepts one, the cheapest first."""
CLASSES = 5
OTHER_CLASSES = (2, 11)
COUNT = 4
CLOSE = 1e-4
"""Tolerance relative to the largest logit where only the order of summation differs."""


class BackboneCase(Case[BackboneSpec]):
    """A backbone with its parameters, at the smallest image size that it takes."""

    classes = CLASSES
    draw_advice = "draw from torch's global generator alone"
    network_advice = "build random weights; offer others through weights and load_weights"

    @shared(reported_by="it-builds-and-gives-logits")
    def size(self) -> int:
        """The first of ``SIZES`` at which it builds and takes images."""
        errors = []
        for size in SIZES:
            try:
                with seeded(1), torch.no_grad():
                    net = self.spec.build(self.params, CLASSES, 3, size)
                    net.eval()(torch.zeros(2, 3, size, size))
            except Exception as error:  # noqa: BLE001  # raised below if no size works
                errors.append(error)
            else:
                return size
        raise errors[0]

    @shared(reported_by="it-builds-and-gives-logits")
    def net(self) -> nn.Module:
        """A network that no check changes."""
        return self.build(seed=1)

    @shared(reported_by="modules-cover-every-parameter-and-buffer-once")
    def modules(self) -> dict[str, tuple[str, ...]]:
        """The partition of the network."""
        return partition(self.spec, self.net)

    @shared(reported_by="no-network-is-used")
    def again(self) -> Observation[Tensor]:
        """Another build and a forward pass."""
        images = self.images()
        return self.observed(lambda: self.logits(self.build(1), images))

    def build(self, seed: int, classes: int = CLASSES, channels: int = 3) -> nn.Module:
        """A fresh network; torch's global generator is restored."""
        size = self.size
        with seeded(seed):
            return self.spec.build(self.params, classes, channels, size)

    def images(self, count: int = COUNT, channels: int = 3) -> Tensor:
        """Normalised noise, (N, C, H, W)."""
        generator = torch.Generator().manual_seed(7)
        return torch.randn(count, channels, self.size, self.size, generator=generator)

    def logits(self, net: nn.Module, images: Tensor) -> Tensor:
        """The output of ``net`` in eval mode, without gradients."""
        with torch.no_grad():
            logits: Tensor = net.eval()(images)
        return logits

    def backward(self, net: nn.Module) -> None:
        """The gradients of the cross-entropy of the images in train mode."""
        labels = torch.arange(COUNT) % CLASSES
        nn.functional.cross_entropy(net.train()(self.images()), labels).backward()  # type: ignore[no-untyped-call]  # torch's

    def refuse_other_logits(self, logits: object, mode: str) -> None:
        """Raises: ``Violation`` unless ``logits`` are those of ``images``."""
        _check_logits(logits, COUNT, CLASSES, 3, mode)


def _tolerance(reference: Tensor) -> float:
    return CLOSE * max(1.0, float(reference.abs().max()))


# --- the checks -------------------------------------------------------------------------------


def check_it_builds_and_gives_logits(case: BackboneCase) -> None:
    """float32 logits (N, K) of images (N, 3, H, W), from a network on the CPU."""
    net = case.net
    if not isinstance(net, nn.Module):
        raise Violation(f"build returned {type(net).__name__}", "return a torch.nn.Module")
    refuse_untrainable(case.spec, net)
    wrong = [name for name, tensor in net.state_dict().items()
             if tensor.device.type != "cpu"
             or (tensor.is_floating_point() and tensor.dtype != torch.float32)]  # fmt: skip
    refuse_any(wrong, "are not float32 on the CPU",
               "build plainly: the engine moves and casts the network")  # fmt: skip
    weights = {name: weight.detach() for name, weight in net.named_parameters()}
    refuse_any(not_finite(weights), "are not finite", "look at the initialization")
    _check_logits(case.logits(net, case.images()), COUNT, CLASSES, 3)


def _check_logits(logits: object, count: int, classes: int, channels: int, mode: str = "") -> None:
    batch = f"{count} images of {channels} channel(s) and {classes} classes"
    if not isinstance(logits, Tensor) or tuple(logits.shape) != (count, classes):
        form = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise Violation(f"{batch} gave logits of {form}{mode}",
                        f"the network must give a tensor ({count}, {classes}): honour num_classes "
                        "and in_chans")  # fmt: skip
    if not bool(logits.isfinite().all()):
        raise Violation(
            f"{batch} gave logits that are not finite{mode}", "look at the initialization"
        )


def check_classes_and_channels_are_honoured(case: BackboneCase) -> None:
    """Other numbers of classes, and grey images as well as colour ones."""
    for classes, channels in product(OTHER_CLASSES, (1, 3)):
        images = case.images(2, channels)
        try:
            logits = case.logits(case.build(1, classes, channels), images)
        except Exception as error:
            raise Violation(
                f"for {classes} classes and {channels} channel(s) it fails: {cause(error)}",
                "honour num_classes and in_chans in build",
            ) from error
        _check_logits(logits, 2, classes, channels)


def check_modules_cover_every_parameter_and_buffer_once(case: BackboneCase) -> None:
    """``modules(net)`` covers everything exactly once and ends with the head."""
    partition(case.spec, case.net)


def check_the_partition_is_the_same_for_every_size(case: BackboneCase) -> None:
    """The names do not depend on the classes, so that a head can be replaced."""
    own, other = case.modules, partition(case.spec, case.build(2, OTHER_CLASSES[0]))
    changed = [name for name in own.keys() | other.keys() if own.get(name) != other.get(name)]
    if changed:
        raise Violation(
            f"with {OTHER_CLASSES[0]} classes the modules {listed(changed)} hold other names",
            "build the same layers for any number of classes",
        )


def check_only_the_head_depends_on_the_classes(case: BackboneCase) -> None:
    """A new target replaces the head alone: every other tensor keeps its shape."""
    ours, theirs = case.net.state_dict(), case.build(2, OTHER_CLASSES[1]).state_dict()
    changed = [name for name in body_names(case.modules)
               if name not in theirs or ours[name].shape != theirs[name].shape]  # fmt: skip
    refuse_any(changed, "change their shape with the number of classes",
               f"put them into {HEAD!r} in modules()")  # fmt: skip


def check_the_head_makes_the_logits(case: BackboneCase) -> None:
    """Each layer of ``head(net)`` is called once in a forward pass; their outputs are the logits.

    Those of several layers may be combined, and nothing else may reach the logits.
    """
    layers = _head_layers(case)
    calls: dict[int, list[tuple[tuple[Any, ...], Any]]] = {i: [] for i in range(len(layers))}
    with ExitStack() as hooks:
        for index, layer in enumerate(layers):
            hooks.enter_context(layer.register_forward_hook(partial(_record, calls[index])))
        logits = case.logits(case.net, case.images())
    for own in calls.values():
        if len(own) != 1:
            raise Violation(
                f"the head was called {len(own)} times in a forward pass",
                "head(net) must be the layer that net calls to make its logits",
            )
        inputs, _ = own[0]
        if not inputs or not isinstance(inputs[0], Tensor) or len(inputs[0]) != len(logits):
            raise Violation("the head does not read one row of features an image",
                            "its first argument must be the features, (N, D)")  # fmt: skip
    outputs = [output for ((_, output),) in calls.values()]
    if not _are_logits(case, layers, outputs, logits):
        raise Violation("the output of the head is not the logits of the network",
                        "head(net) must be the last layer")  # fmt: skip


def _head_layers(case: BackboneCase) -> list[nn.Module]:
    head = case.spec.head(case.net)
    if not isinstance(head, nn.Module):
        raise Violation(f"head(net) returned {type(head).__name__}",
                        "return a layer of net, or several in an nn.ModuleList")  # fmt: skip
    layers = head_layers(head)
    if not layers or any(layer not in case.net.modules() for layer in layers):
        raise Violation("head(net) is not a part of net", "return the layer itself, not a new one")
    return layers


def _record(
    calls: list[tuple[tuple[Any, ...], Any]], _: nn.Module, inputs: tuple[Any, ...], output: Any
) -> None:
    calls.append((inputs, output))


def _are_logits(
    case: BackboneCase, layers: Sequence[nn.Module], outputs: Sequence[Any], logits: Tensor
) -> bool:
    """Whether the outputs of the head determine the logits; those of one layer are equal to them.

    With the outputs of several layers replaced by their own, other images must give equal logits.
    """
    if len(outputs) == 1:
        (output,) = outputs
        return isinstance(output, Tensor) and torch.equal(output.flatten(), logits.flatten())
    with ExitStack() as hooks:
        for layer, output in zip(layers, outputs, strict=True):
            hooks.enter_context(layer.register_forward_hook(lambda *_, own=output: own))
        return torch.equal(case.logits(case.net, -case.images()), logits)


def check_the_head_module_holds_the_head(case: BackboneCase) -> None:
    """The layer of ``head(net)`` has parameters, all of them in the partition's head."""
    head = case.spec.head(case.net)
    if not isinstance(head, nn.Module):
        raise SkipTest("there is no head, see the-head-makes-the-logits")
    mine = {id(parameter) for parameter in head.parameters()}
    if not mine:
        raise Violation(
            "the layer of head(net) has no parameters",
            "a new target needs weights to learn: give the last linear layer",
        )
    names = {name for name, parameter in case.net.named_parameters() if id(parameter) in mine}
    refuse_any(names - set(case.modules[HEAD]),
               f"belong to head(net), but not to the module {HEAD!r}",
               "let modules() and head() name the same layer")  # fmt: skip


def check_eval_is_deterministic(case: BackboneCase) -> None:
    """Two passes in eval mode give bitwise equal logits."""
    images = case.images()
    refuse_gap(case.logits(case.net, images), case.logits(case.net, images),
               "two passes in eval mode differ",
               "let dropout and every other draw depend on self.training")  # fmt: skip


def check_the_batch_does_not_matter_in_eval(case: BackboneCase) -> None:
    """An image gives the same logits alone and in a batch."""
    images = case.images()
    together = case.logits(case.net, images)
    alone = torch.cat([case.logits(case.net, image[None]) for image in images])
    refuse_gap(alone, together, f"logits alone and in a batch of {COUNT} differ",
               "compute no statistics over the batch in eval mode",
               within=_tolerance(together))  # fmt: skip


def check_the_images_are_left_untouched(case: BackboneCase) -> None:
    """In train and in eval mode; batches are reused."""
    net, images = case.build(1), case.images()
    for mode in (True, False):
        with torch.no_grad():
            net.train(mode)(images)
        if not torch.equal(images, case.images()):
            raise Violation("the forward pass changed its images",
                            "make the first layer's operation not in-place")  # fmt: skip


def check_the_state_round_trips(case: BackboneCase) -> None:
    """After a training step, loading the saved state into another build gives equal logits."""
    net, other, images = case.build(1), case.build(2), case.images()
    case.backward(net)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.01)
    load_state(other, load(save(clone_state(net))))
    refuse_gap(
        case.logits(net, images), case.logits(other, images),
        "a network that loads the saved state of another gives other logits,",
        "register everything that a pass reads or writes as a parameter or a buffer",
    )  # fmt: skip


def check_equal_seeds_build_equal_networks(case: BackboneCase) -> None:
    """All randomness of the builder comes from torch's global generator."""
    if different := differing(case.build(3).state_dict(), case.build(3).state_dict()):
        raise Violation(f"two builds from one seed differ in {listed(different)}",
                        "draw from torch's global generator alone")  # fmt: skip


def check_other_seeds_build_other_networks(case: BackboneCase) -> None:
    """Replicates differ: the builder draws its weights and does not seed itself."""
    if not differing(case.build(3).state_dict(), case.build(4).state_dict()):
        raise Violation("builds from two seeds have equal weights",
                        "leave seeding to the framework: no manual_seed in build")  # fmt: skip


def check_the_builder_seeds_nothing(case: BackboneCase) -> None:
    """It draws from torch's global generator, and seeds neither that nor any other."""
    size, states = case.size, []
    for seed in (3, 4):
        with seeded(seed):
            before = randomness()
            case.spec.build(case.params, CLASSES, 3, size)
            states.append(randomness()["torch"])
            moved = [name for name in moved_since(before) if name != "torch"]
        if moved:
            raise Violation(f"building moves the global generator of {' and '.join(moved)}",
                            case.draw_advice)  # fmt: skip
    if states[0] == states[1]:
        raise Violation("after builds from two seeds torch's global generator is in the same state",
                        "the framework seeds it: no manual_seed in build")  # fmt: skip


def check_a_pass_seeds_nothing(case: BackboneCase) -> None:
    """A pass in train mode may draw from the global generators, and seeds none."""
    net, states = case.build(1).train(), []
    for seed in (3, 4):
        with seeded_generators(seed):
            net(case.images())
            states.append(randomness())
    if seeds := [name for name in states[0] if states[0][name] == states[1][name]]:
        raise Violation(
            f"after passes from two seeds the global generator of {' and '.join(seeds)} is in the "
            "same state", "the framework seeds it: no seed in forward",
        )  # fmt: skip


def check_batch_statistics_are_declared_truly(case: BackboneCase) -> None:
    """``batch_statistics`` says whether a pass in train mode changes buffers.

    After weight arithmetic they must be recomputed.
    """
    net = case.build(1).train()
    before = clone_state(net)
    with torch.no_grad():
        net(case.images())
    changed = differing(before, net.state_dict())
    declared = case.spec.batch_statistics(case.params)
    if bool(changed) != declared:
        raise Violation(
            f"batch_statistics is {declared}, and a pass in train mode changes "
            f"{listed(changed) or 'no buffer'}",
            f"declare batch_statistics={not declared} for these parameters",
        )


def check_cpu_and_cuda_agree(case: BackboneCase) -> None:
    """The same logits on either device, to float32 rounding, once the network is moved."""
    net, images = case.build(1), case.images()
    if not torch.cuda.is_available():
        raise SkipTest("there is no CUDA device here")
    expected = case.logits(net, images)
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        logits = case.logits(net.cuda(), images.cuda()).cpu()
    refuse_gap(logits, expected, "CPU and CUDA differ",
               "make no tensors on a device of your own in forward",
               within=10 * _tolerance(expected))  # fmt: skip


def check_the_preprocessing_has_a_value_a_channel(case: BackboneCase) -> None:
    """Mean and std of the weights it can load: one value, or one for each of three channels."""
    declared = case.spec.preprocessing(case.params)
    if declared is None:
        raise SkipTest("it declares no preprocessing")
    lengths = len(declared.mean), len(declared.std)
    if lengths not in {(1, 1), (3, 3)}:
        raise Violation(f"mean and std have {lengths[0]} and {lengths[1]} values",
                        "give 1 or 3 of each")  # fmt: skip
    if min(declared.std) <= 0:
        raise Violation(f"std holds {min(declared.std)}",
                        "images are divided by it: give more than 0")  # fmt: skip


def check_rate_factors_match_parameters(case: BackboneCase) -> None:
    """Every pattern of ``rate_factors`` matches at least one parameter."""
    names = [name for name, _ in case.net.named_parameters()]
    for factor in case.spec.rate_factors:
        if not any(re.search(factor.pattern, name) for name in names):
            raise Violation(f"the rate factor {factor.pattern!r} matches no parameter",
                            f"parameters are called like {listed(names)}")  # fmt: skip


def check_weights_from_outside_are_offered_whole(case: BackboneCase) -> None:
    """Tags are unique, and ``load_weights`` exists where weights are offered."""
    tags = [weights.tag for weights in case.spec.weights(case.params)]
    if len(set(tags)) < len(tags):
        raise Violation(f"two weights have one tag: {', '.join(sorted(tags))}", "rename one")
    if tags and case.spec.load_weights is None:
        raise Violation(f"it offers weights {tags[0]!r} and has no load_weights",
                        "write load_weights")  # fmt: skip


def check_the_family_is_declared_whole(case: BackboneCase) -> None:
    """``member`` names a parameter, and ``members`` lists names that build."""
    spec = case.spec
    if spec.member is None:
        if spec.members is not None:
            raise Violation("it lists members and names no member parameter", "set member")
        raise SkipTest("it is not a family")
    if spec.member not in spec.params.model_fields:
        fields = ", ".join(spec.params.model_fields) or "none"
        raise Violation(f"member {spec.member!r} is not a parameter", f"parameters are {fields}")
    members = spec.members() if spec.members else ()
    for member in members:
        if not isinstance(member, str) or not member:
            raise Violation(f"members() holds {member!r}", "list names")
    if len(set(members)) < len(members):
        raise Violation("members() names a member twice", "list each once")


CASE = BackboneCase
CHECKS = (
    *defined_in(__name__),
    *backbone_training.CHECKS,
    cases.check_no_network_is_used,
    cases.check_nothing_is_printed,
    cases.check_what_everybody_shares_is_kept,
)
