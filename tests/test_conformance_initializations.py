"""A bad plugin for each check of an initialization."""

import contextlib
import socket

import numpy as np
import pytest
import torch
from conforming import INITIALIZATION, altered, failure, names_of, redraw

from transferbench.conformance import check_plugin
from transferbench.conformance.initializations import CHECKS
from transferbench.errors import PluginError
from transferbench.networks.modules import load_state
from transferbench.specs import Params


def with_images(params, net, context):
    """It reads images that it does not declare."""
    first = next(net.parameters())
    with torch.no_grad():
        first.mul_(context.images.std())


def refusing(params, net, context):
    raise PluginError("it needs a network of 100 layers; choose a deeper one")


def drawing_globally(params, net, context):
    redraw(params, net, context)
    with torch.no_grad():
        next(net.parameters()).add_(torch.rand(1))


def printing(params, net, context):
    print("hello")  # noqa: T201  # what is caught
    redraw(params, net, context)


def dividing_by_zero(params, net, context):
    redraw(params, net, context)
    with torch.no_grad():
        next(net.parameters()).div_(0)


def exploding(params, net, context):
    redraw(params, net, context)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.fill_(1e30)


def everything(params, net, context):
    redraw(params, net, context)
    with torch.no_grad():
        for name in context.modules["head"]:
            net.get_parameter(name).zero_()


def nothing(params, net, context):
    assert context.source_state is not None


def reshaping(params, net, context):
    first = next(iter(net.named_parameters()))
    layer, _, leaf = first[0].rpartition(".")
    setattr(net.get_submodule(layer), leaf, torch.nn.Parameter(first[1].detach().double()))


def freezing(params, net, context):
    redraw(params, net, context)
    next(net.parameters()).requires_grad = False


def leaving_eval_mode(params, net, context):
    redraw(params, net, context)
    net.eval()


def spoiling_the_source(params, net, context):
    redraw(params, net, context)
    next(iter(context.source_state.values())).zero_()


def sharing(params, net, context):
    for name, parameter in net.named_parameters():
        if name in context.source_state:
            parameter.data = context.source_state[name]


def drawing_from(fixed):
    """The good initialization, and noise whose generator does not follow the context's."""

    def initialize(params, net, context):
        redraw(params, net, context)
        with torch.no_grad():
            fixed(next(net.parameters()), context)

    return {"initialize": initialize}


def draw_by_torch(weight, context):
    weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(0)))


def draw_by_numpy(weight, context):
    weight.add_(torch.from_numpy(np.random.default_rng(0).normal(size=weight.shape)))


def draw_by_the_global_one(weight, context):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        torch.nn.init.kaiming_normal_(weight)


def seed_the_context(weight, context):
    weight.normal_(generator=context.generator.manual_seed(0))


def constant(params, net, context):
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if name in context.source_state:
                parameter.fill_(0.01)


def spoiling_the_images(params, net, context):
    with torch.no_grad():
        next(net.parameters()).mul_(context.images.std())
        context.images.sub_(context.images.mean())


def downloading(params, net, context):
    redraw(params, net, context)
    with contextlib.suppress(OSError):
        socket.create_connection(("192.0.2.1", 443))


def without_gradients(params, net, context):
    torch.set_grad_enabled(False)
    redraw(params, net, context)


BAD = {
    "an initialization that prints": (
        {"initialize": printing},
        "nothing-is-printed",
        "it printed 'hello'; take the print out, or use logging",
    ),
    "needs that it does not declare": (
        {"initialize": with_images},
        "it-starts-some-network",
        "it raised AttributeError: 'NoneType' object has no attribute 'std'",
    ),
    "no network will do": (
        {"initialize": refusing},
        "it-starts-some-network",
        "it refuses every network (a network with batch statistics: it needs a network of 100",
    ),
    "the global generator for a draw": (
        {"initialize": drawing_globally},
        "global-randomness-is-untouched",
        "the global generator of torch was moved; draw from context.generator",
    ),
    "another draw each time": (
        {"initialize": drawing_globally},
        "the-same-seed-gives-the-same-weights",
        "two calls with one seed give other conv1.weight in a network with batch statistics; draw",
    ),
    "a fixed seed": (
        drawing_from(draw_by_torch),
        "another-seed-gives-other-draws",
        (
            "torch's randn draws the same numbers for seeds (0, 1) of the context in a network "
            "with batch statistics; draw from context.generator, or seed another generator with"
        ),
    ),
    "a fixed seed of numpy": (
        drawing_from(draw_by_numpy),
        "another-seed-gives-other-draws",
        "numpy.random.default_rng draws the same numbers for seeds (0, 1) of the context",
    ),
    "a fixed seed of the global generator, which is put back": (
        drawing_from(draw_by_the_global_one),
        "another-seed-gives-other-draws",
        "torch's normal_ draws the same numbers for seeds (0, 1) of the context",
    ),
    "a fixed seed of the context's generator": (
        drawing_from(seed_the_context),
        "another-seed-gives-other-draws",
        "torch's normal_ draws the same numbers for seeds (0, 1) of the context",
    ),
    "a division by zero": (
        {"initialize": dividing_by_zero},
        "weights-are-finite",
        "conv1.weight of a network with batch statistics are not finite; guard divisions",
    ),
    "weights that explode": (
        {"initialize": exploding, "touches": "everything"},
        "weights-are-finite",
        "gives logits that are not finite; look at the scale of the weights",
    ),
    "an undeclared change of the head": (
        {"initialize": everything},
        "it-touches-what-it-declares",
        "touches is 'body', and it changes the body and the head; declare touches='everything'",
    ),
    "nothing touched": (
        {"initialize": nothing},
        "it-touches-what-it-declares",
        "touches is 'body', and it changes nothing; declare touches='nothing'",
    ),
    "the head not touched": (
        {"touches": "everything"},
        "it-touches-what-it-declares",
        "touches is 'everything', and it changes the body; declare touches='body'",
    ),
    "another type of weights": (
        {"initialize": reshaping},
        "names-and-shapes-are-kept",
        (
            "conv1.weight of a network with batch statistics have another shape, type or "
            "requires_grad; copy into the existing tensors"
        ),
    ),
    "frozen weights": (
        {"initialize": freezing},
        "names-and-shapes-are-kept",
        "conv1.weight of a network with batch statistics have another shape, type or requires_grad",
    ),
    "eval mode": (
        {"initialize": leaving_eval_mode},
        "names-and-shapes-are-kept",
        "is left in another mode; restore train or eval mode",
    ),
    "a spoilt source": (
        {"initialize": spoiling_the_source},
        "what-is-given-is-left-untouched",
        "the source's weights were changed; work on copies of source_state",
    ),
    "spoilt images": (
        {"initialize": spoiling_the_images, "needs": frozenset({"images"})},
        "what-is-given-is-left-untouched",
        "the images were changed; work on a copy of context.images",
    ),
    "the source's own tensors": (
        {"initialize": sharing},
        "the-network-shares-no-memory",
        "are the source's own tensors; copy the values: parameter.copy_(...)",
    ),
    "a source that it does not read": (
        {"initialize": constant},
        "what-it-needs-moves-its-weights",
        (
            "it declares needs=['source_weights'], and its weights do not depend on the source's "
            "weights; declare only what it reads"
        ),
    ),
    "images beside the source that it does not read": (
        {"needs": frozenset({"images", "source_weights"})},
        "what-it-needs-moves-its-weights",
        (
            "it declares needs=['images', 'source_weights'], and its weights do not depend on the "
            "images; declare only what it reads"
        ),
    ),
    "a download": (
        {"initialize": downloading},
        "no-network-is-used",
        "it tried to reach ('192.0.2.1', 443) on the network; read context.source_state",
    ),
    "gradients switched off": (
        {"initialize": without_gradients},
        "what-everybody-shares-is-kept",
        "torch.is_grad_enabled() went from True to False; set it in a with block",
    ),
    "an epoch in words": (
        {"checkpoint": lambda params: "last"},
        "the-checkpoint-is-an-epoch",
        "checkpoint returned 'last'; return an epoch from 0, or None",
    ),
    "an epoch of no source": (
        {"checkpoint": lambda params: 3, "needs": frozenset()},
        "the-checkpoint-is-an-epoch",
        "it asks for checkpoint 3 and needs no source; declare needs={'source_weights'}",
    ),
}


@pytest.mark.parametrize("bad", BAD)
def test_each_bad_initialization_is_caught_with_advice(bad):
    changes, check, words = BAD[bad]
    assert words in failure(altered(INITIALIZATION, **changes), check)


def test_every_check_fails_for_a_bad_plugin():
    assert {check for _, check, _ in BAD.values()} == names_of(CHECKS)


def test_what_suits_one_network_alone_conforms():
    def initialize(params, net, context):
        if not hasattr(net, "bn1"):
            raise PluginError("it needs a residual network; choose one")
        redraw(params, net, context)

    assert all(result.ok for result in check_plugin(altered(INITIALIZATION, initialize=initialize)))


def test_generators_that_follow_the_context_conform():
    def follow(weight, context):
        seeds = torch.randint(2**31, (2,), generator=context.generator).tolist()
        weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(seeds[0])))
        weight.add_(torch.from_numpy(np.random.default_rng(seeds[1]).normal(size=weight.shape)))

    spec = altered(INITIALIZATION, **drawing_from(follow))
    assert {result.message for result in check_plugin(spec)} == {""}


def test_a_copy_draws_nothing():
    def copy(params, net, context):
        load_state(net, context.source_state, context.source_state)

    results = {r.check: r for r in check_plugin(altered(INITIALIZATION, initialize=copy))}
    skipped = results["another-seed-gives-other-draws"]
    assert (skipped.status, skipped.message) == ("skipped", "nothing is drawn")


def test_parameters_may_leave_out_what_others_need():
    class SourceShare(Params):
        share: float = 1.0

    def blend(params, net, context):
        with torch.no_grad():
            for name, weight in net.named_parameters():
                if name in context.source_state:
                    weight.lerp_(context.source_state[name], params.share).add_(1e-3)

    spec = altered(INITIALIZATION, initialize=blend, params=SourceShare)
    outcomes = {}
    for share in (1.0, 0.0):
        results = check_plugin(spec, params={"share": share})
        (outcomes[share],) = (r for r in results if r.check == "what-it-needs-moves-its-weights")
    assert outcomes[1.0].status == "passed"
    words = "with these parameters its weights do not depend on the source's weights"
    assert (outcomes[0.0].status, outcomes[0.0].message) == ("skipped", words)
