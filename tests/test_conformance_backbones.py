"""A bad plugin for each check of a backbone."""

import contextlib
import itertools
import random
import socket

import pytest
import torch
from conforming import BACKBONE, altered, body, build, failure, names_of
from torch import nn

from transferbench.conformance import check_plugin
from transferbench.conformance.backbones import CHECKS
from transferbench.specs import Params, Preprocessing, RateFactor, Weights

COUNTER = itertools.count()
MODULES = {"body": ["body"], "head": ["head"]}


class TinyNet(nn.Module):
    """The good network as a class, to be broken in its forward pass."""

    def __init__(self, num_classes, in_chans):
        super().__init__()
        self.body = body(in_chans)
        self.head = nn.Linear(16, num_classes)

    def features(self, x):
        return self.body(x)

    def forward(self, x):
        return self.head(self.features(x))


def of(kind):
    """A builder of one class of networks."""
    return {"build": lambda params, classes, channels, size: kind(classes, channels)}


class Dropping(TinyNet):
    def features(self, x):
        return nn.functional.dropout(self.body(x), 0.5, training=True)


class Centred(TinyNet):
    def features(self, x):
        features = self.body(x)
        return features - features.mean(dim=0)


class InPlace(TinyNet):
    def features(self, x):
        return self.body(x.mul_(0.5))


class Idle(TinyNet):
    def __init__(self, num_classes, in_chans):
        super().__init__(num_classes, in_chans)
        self.body.add_module("unused", nn.Linear(2, 2))

    def features(self, x):
        return self.body[3](self.body[:3](x))


class EndlessNet(TinyNet):
    """sqrt has no finite slope at 0."""

    def features(self, x):
        return self.body(x) + (self.body[0].bias.sum() * 0).abs().sqrt()


class Remembering(TinyNet):
    """A running mean that no state holds."""

    mean = 0.0

    def features(self, x):
        features = self.body(x)
        if self.training:
            self.mean = features.mean().item()
        return features - self.mean


class Tracking(TinyNet):
    def __init__(self, num_classes, in_chans):
        super().__init__(num_classes, in_chans)
        self.body.add_module("norm", nn.BatchNorm1d(16))


class TwiceNet(TinyNet):
    def forward(self, x):
        return self.head(self.features(x)) + self.head(self.features(x))


class ScaledNet(TinyNet):
    def forward(self, x):
        return 2 * self.head(self.features(x))


class Swapped(TinyNet):
    """Its head reads one row a class."""

    def forward(self, x):
        return self.head(self.features(x).repeat(2, 1))[: len(x)]


class Listed(TinyNet):
    def forward(self, x):
        return [super().forward(x)]


class UndefinedNet(TinyNet):
    def forward(self, x):
        return super().forward(x) / 0


class WithClasses(TinyNet):
    """Its body knows the number of classes."""

    def __init__(self, num_classes, in_chans):
        super().__init__(num_classes, in_chans)
        self.body.add_module("wide", nn.Linear(16, num_classes))
        self.head = nn.Linear(num_classes, num_classes)


class MoreLayers(TinyNet):
    """A deeper head for few classes."""

    def __init__(self, num_classes, in_chans):
        super().__init__(num_classes, in_chans)
        if num_classes == 2:
            self.head = nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 2))


class FrozenNet(TinyNet):
    def __init__(self, num_classes, in_chans):
        super().__init__(num_classes, in_chans)
        self.requires_grad_(requires_grad=False)


class Double(TinyNet):
    def __init__(self, num_classes, in_chans):
        super().__init__(num_classes, in_chans)
        self.double()

    def forward(self, x):
        return super().forward(x.double()).float()


class WithParameter(TinyNet):
    """A further parameter in the body, which the features are multiplied by."""

    def __init__(self, num_classes, in_chans):
        super().__init__(num_classes, in_chans)
        self.body.register_parameter("extra", self.extra())

    def features(self, x):
        return self.body(x) * self.body.extra.abs().float()


class Complex(WithParameter):
    def extra(self):
        return nn.Parameter(torch.ones(16, dtype=torch.complex64))


class Integers(WithParameter):
    def extra(self):
        return nn.Parameter(torch.ones(16, dtype=torch.int64), requires_grad=False)


class Half(WithParameter):
    def extra(self):
        return nn.Parameter(torch.ones(16, dtype=torch.float16))


class NotANumber(WithParameter):
    """Hidden from the logits until it is trained."""

    def extra(self):
        return nn.Parameter(torch.full((16,), torch.nan))

    def features(self, x):
        return self.body(x) * self.body.extra.nan_to_num(1.0)


class Lazy(TinyNet):
    def __init__(self, num_classes, in_chans):
        super().__init__(num_classes, in_chans)
        self.body.add_module("lazy", nn.LazyLinear(16))


class Extra(nn.Linear):
    """Its state dict holds more than tensors."""

    def get_extra_state(self):
        return {"passes": 3}

    def set_extra_state(self, state):
        pass


class WithExtraState(TinyNet):
    def __init__(self, num_classes, in_chans):
        super().__init__(num_classes, in_chans)
        self.head = Extra(16, num_classes)


class Sparse(TinyNet):
    def __init__(self, num_classes, in_chans):
        super().__init__(num_classes, in_chans)
        self.body.add_module("codes", nn.Embedding(4, 16, sparse=True))

    def features(self, x):
        return self.body[:4](x) + self.body.codes(torch.arange(len(x)) % 4)


class Detached(TinyNet):
    def features(self, x):
        return self.body(x).detach()


class Auxiliary(TinyNet):
    """As Inception: a second output in training mode."""

    def forward(self, x):
        logits = super().forward(x)
        return (logits, logits) if self.training else logits


class Contiguous(TinyNet):
    """Views need maps that are contiguous."""

    def forward(self, x):
        if self.training:
            x = x.view(len(x), -1).view(x.shape)
        return super().forward(x)


class SinglePrecision(TinyNet):
    def features(self, x):
        features = self.body(x)
        return torch.fft.rfft(features, 30).real if features.dtype == torch.float32 else 1 / 0


class Squeezed(TinyNet):
    """Loses the batch of a single image."""

    def features(self, x):
        return self.body(x).squeeze(0)

    def forward(self, x):
        return super().forward(x) if len(x) > 1 or not self.training else super().forward(x)[0, 0]


class Diverging(TinyNet):
    """Its weights leave the numbers in one step."""

    def features(self, x):
        features = self.body(x)
        if features.requires_grad:
            features.register_hook(lambda gradient: gradient / 0)
        return features


class TiedNet(TinyNet):
    def __init__(self, num_classes, in_chans):
        super().__init__(num_classes, in_chans)
        self.body.register_buffer("mask", self.head.weight.detach())


class TwoHeads(TinyNet):
    """Averages two layers."""

    def __init__(self, num_classes, in_chans):
        super().__init__(num_classes, in_chans)
        self.head = nn.ModuleList([nn.Linear(16, num_classes), nn.Linear(16, num_classes)])

    def forward(self, x):
        own, other = self.head
        features = self.features(x)
        return (own(features) + other(features)) / 2


class TwoHeadsAndMore(TwoHeads):
    """Its features reach the logits beside the layers of the head."""

    def forward(self, x):
        return super().forward(x) + self.features(x).mean()


class Seeding(TinyNet):
    """Its passes draw the same numbers."""

    def forward(self, x):
        torch.manual_seed(0)
        random.seed(0)
        return super().forward(x)


def printing(*arguments):
    print("building")  # noqa: T201  # what is caught
    return build(*arguments)


def seeding_first(*arguments):
    torch.manual_seed(0)
    return build(*arguments)


def seeding_last(*arguments):
    net = build(*arguments)
    torch.manual_seed(0)
    return net


def drawing_elsewhere(*arguments):
    random.random()
    return build(*arguments)


def counting(*arguments):
    net = build(*arguments)
    with torch.no_grad():
        net.head.bias.fill_(next(COUNTER))
    return net


def downloading(*arguments):
    with socket.socket() as connection, contextlib.suppress(OSError):
        connection.connect(("192.0.2.1", 443))  # a silent fallback to random weights
    return build(*arguments)


def always_deterministic(*arguments):
    torch.use_deterministic_algorithms(mode=True)
    return build(*arguments)


def ten_classes(params, num_classes, in_chans, image_size):
    return build(params, 10, in_chans, image_size)


def five_classes(params, num_classes, in_chans, image_size):
    return build(params, 5, in_chans, image_size)


def colour_alone(params, num_classes, in_chans, image_size):
    return build(params, num_classes, 3, image_size)


class Model(Params):
    model: str = "small"


BAD = {
    "no network": (
        {"build": lambda params, classes, channels, size: {}},
        "it-builds-and-gives-logits",
        "it raised AttributeError: 'dict' object has no attribute 'eval'",
    ),
    "a builder that raises": (
        {"build": lambda params, classes, channels, size: params.width},
        "it-builds-and-gives-logits",
        "it raised AttributeError: 'NoParams' object has no attribute 'width'",
    ),
    "always ten classes": (
        {"build": ten_classes},
        "it-builds-and-gives-logits",
        (
            "4 images of 3 channel(s) and 5 classes gave logits of (4, 10); the network must give "
            "a tensor (4, 5): honour num_classes and in_chans"
        ),
    ),
    "a list of logits": (
        of(Listed),
        "it-builds-and-gives-logits",
        "gave logits of list; the network must give a tensor (4, 5)",
    ),
    "logits that are not finite": (
        of(UndefinedNet),
        "it-builds-and-gives-logits",
        "gave logits that are not finite; look at the initialization",
    ),
    "double precision": (
        of(Double),
        "it-builds-and-gives-logits",
        "body.0.bias, body.0.weight, head.bias, head.weight are not float32 on the CPU; build",
    ),
    "a complex weight": (
        of(Complex),
        "it-builds-and-gives-logits",
        (
            "body.extra (torch.complex64) are parameters that cannot be trained (not real numbers);"
            " register complex weights as their real and imaginary parts, and integers as buffers"
        ),
    ),
    "an integer parameter": (
        of(Integers),
        "it-builds-and-gives-logits",
        "body.extra (torch.int64) are parameters that cannot be trained",
    ),
    "half precision": (
        of(Half),
        "it-builds-and-gives-logits",
        "body.extra are not float32 on the CPU; build plainly",
    ),
    "a weight that is no number": (
        of(NotANumber),
        "it-builds-and-gives-logits",
        "body.extra are not finite; look at the initialization",
    ),
    "a lazy layer": (
        of(Lazy),
        "it-builds-and-gives-logits",
        "body.lazy.weight, body.lazy.bias have no shape before the first forward pass; give layers",
    ),
    "a state that holds more than tensors": (
        of(WithExtraState),
        "it-builds-and-gives-logits",
        "head._extra_state are not tensors; keep them out of the state dict",
    ),
    "five classes alone": (
        {"build": five_classes},
        "classes-and-channels-are-honoured",
        "2 images of 1 channel(s) and 2 classes gave logits of (2, 5)",
    ),
    "colour alone": (
        {"build": colour_alone},
        "classes-and-channels-are-honoured",
        "for 2 classes and 1 channel(s) it fails: RuntimeError: Given groups=1",
    ),
    "a buffer that is missed": (
        {**of(Tracking), "modules": lambda net: {"body": ["body.0"], "head": ["head"]}},
        "modules-cover-every-parameter-and-buffer-once",
        "no module owns body.norm.weight, body.norm.bias, body.norm.running_mean",
    ),
    "a parameter in two modules": (
        {"modules": lambda net: {"body": ["body"], "stem": ["body.0"], "head": ["head"]}},
        "modules-cover-every-parameter-and-buffer-once",
        "several modules own body.0.weight, body.0.bias; modules() must name every parameter",
    ),
    "a prefix of nothing": (
        {"modules": lambda net: {"body": ["body", "neck"], "head": ["head"]}},
        "modules-cover-every-parameter-and-buffer-once",
        "nothing in the network matches neck; modules() must",
    ),
    "the head first": (
        {"modules": lambda net: {"head": ["head"], "body": ["body"]}},
        "modules-cover-every-parameter-and-buffer-once",
        "the last module must be 'head', the layer that a new target replaces",
    ),
    "layers that depend on the classes": (
        of(MoreLayers),
        "the-partition-is-the-same-for-every-size",
        "with 2 classes the modules head hold other names; build the same layers",
    ),
    "a body that depends on the classes": (
        of(WithClasses),
        "only-the-head-depends-on-the-classes",
        (
            "body.wide.bias, body.wide.weight change their shape with the number of classes; put "
            "them into 'head'"
        ),
    ),
    "the head's name": (
        {"head": lambda net: "head"},
        "the-head-makes-the-logits",
        "head(net) returned str; return a layer of net",
    ),
    "a copy of the head": (
        {"head": lambda net: nn.Linear(16, 5)},
        "the-head-makes-the-logits",
        "head(net) is not a part of net; return the layer itself",
    ),
    "a layer before the head": (
        {"head": lambda net: net.body},
        "the-head-makes-the-logits",
        "the output of the head is not the logits of the network; head(net) must be the last",
    ),
    "a head that is called twice": (
        of(TwiceNet),
        "the-head-makes-the-logits",
        "the head was called 2 times in a forward pass; head(net) must be the layer",
    ),
    "logits behind the head": (
        of(ScaledNet),
        "the-head-makes-the-logits",
        "the output of the head is not the logits of the network",
    ),
    "a head outside its module": (
        {
            "modules": lambda net: {"body": ["body", "head.weight"], "head": ["head.bias"]},
        },
        "the-head-module-holds-the-head",
        "head.weight belong to head(net), but not to the module 'head'; let modules() and head()",
    ),
    "a head without weights": (
        {
            "build": lambda *arguments: nn.Sequential(build(*arguments), nn.Identity()),
            "modules": lambda net: {"body": ["0.body"], "head": ["0.head"]},
            "head": lambda net: net[1],
        },
        "the-head-module-holds-the-head",
        "the layer of head(net) has no parameters; a new target needs weights to learn",
    ),
    "dropout in eval mode": (
        of(Dropping),
        "eval-is-deterministic",
        "two passes in eval mode differ by up to",
    ),
    "the mean of the batch": (
        of(Centred),
        "the-batch-does-not-matter-in-eval",
        "; compute no statistics over the batch in eval mode",
    ),
    "images changed in place": (
        of(InPlace),
        "the-images-are-left-untouched",
        "the forward pass changed its images; make the first layer's operation not in-place",
    ),
    "a layer that nothing uses": (
        of(Idle),
        "every-parameter-gets-a-finite-gradient",
        "body.unused.bias, body.unused.weight get no gradient; use them in forward",
    ),
    "sparse gradients": (
        of(Sparse),
        "every-parameter-gets-a-finite-gradient",
        "body.codes.weight get sparse gradients, which no optimizer here takes; build the layer",
    ),
    "a body without gradients": (
        of(Detached),
        "every-parameter-gets-a-finite-gradient",
        "body.0.bias, body.0.weight get no gradient; use them in forward",
    ),
    "a second output in training": (
        of(Auxiliary),
        "it-gives-logits-in-training-mode",
        "gave logits of tuple in training mode; the network must give a tensor (4, 5)",
    ),
    "contiguous images alone": (
        of(Contiguous),
        "it-is-trained-and-evaluated-by-the-engine",
        "it raised RuntimeError: view size is not compatible with input tensor's size and stride",
    ),
    "weights that leave the numbers": (
        of(Diverging),
        "it-is-trained-and-evaluated-by-the-engine",
        "are not finite after a step of sgd; look at the initialization",
    ),
    "single precision alone": (
        of(SinglePrecision),
        "it-is-trained-in-bf16",
        "it raised ZeroDivisionError: division by zero",
    ),
    "several images alone": (
        of(Squeezed),
        "one-image-is-a-batch",
        "it fails for a batch of one image: ",
    ),
    "a buffer that is the head's weight": (
        of(TiedNet),
        "modules-share-no-weights",
        "the modules 'body', 'head' share weights (body.mask, head.weight), so that none of them",
    ),
    "features beside two heads": (
        {**of(TwoHeadsAndMore), "head": lambda net: net.head},
        "the-head-makes-the-logits",
        "the output of the head is not the logits of the network; head(net) must be the last",
    ),
    "an empty list of heads": (
        {"head": lambda net: nn.ModuleList()},
        "the-head-makes-the-logits",
        "head(net) is not a part of net",
    ),
    "a builder that prints": (
        {"build": printing},
        "nothing-is-printed",
        "it printed 'building'; take the print out, or use logging",
    ),
    "an endless slope": (
        of(EndlessNet),
        "every-parameter-gets-a-finite-gradient",
        "body.0.bias get gradients that are not finite; look at divisions and roots of zero",
    ),
    "a frozen network": (
        of(FrozenNet),
        "every-parameter-gets-a-finite-gradient",
        "no parameter requires a gradient; build the network trainable",
    ),
    "a memory outside the state": (
        of(Remembering),
        "the-state-round-trips",
        "; register everything that a pass reads or writes as a parameter or a buffer",
    ),
    "weights that count the builds": (
        {"build": counting},
        "equal-seeds-build-equal-networks",
        "two builds from one seed differ in head.bias; draw from torch's global generator alone",
    ),
    "its own seed": (
        {"build": seeding_first},
        "other-seeds-build-other-networks",
        "builds from two seeds have equal weights; leave seeding to the framework: no manual_seed",
    ),
    "a seed left behind": (
        {"build": seeding_last},
        "the-builder-seeds-nothing",
        (
            "after builds from two seeds torch's global generator is in the same state; the "
            "framework seeds it: no manual_seed in build"
        ),
    ),
    "a seed in forward": (
        of(Seeding),
        "a-pass-seeds-nothing",
        (
            "after passes from two seeds the global generator of torch and random is in the same "
            "state; the framework seeds it: no seed in forward"
        ),
    ),
    "another global generator": (
        {"build": drawing_elsewhere},
        "the-builder-seeds-nothing",
        "building moves the global generator of random; draw from torch's global generator alone",
    ),
    "a download in build": (
        {"build": downloading},
        "no-network-is-used",
        "it tried to reach ('192.0.2.1', 443) on the network; build random weights; offer others",
    ),
    "a setting of torch": (
        {"build": always_deterministic},
        "what-everybody-shares-is-kept",
        "torch.get_deterministic_debug_mode() went from 0 to 2; set it in a with",
    ),
    "undeclared batch statistics": (
        of(Tracking),
        "batch-statistics-are-declared-truly",
        "batch_statistics is False, and a pass in train mode changes body.norm",
    ),
    "batch statistics that are none": (
        {"batch_statistics": lambda params: True},
        "batch-statistics-are-declared-truly",
        "batch_statistics is True, and a pass in train mode changes no buffer; declare",
    ),
    "two means": (
        {"preprocessing": lambda params: Preprocessing(mean=(0.5, 0.5), std=(0.5,))},
        "the-preprocessing-has-a-value-a-channel",
        "mean and std have 2 and 1 values; give 1 or 3 of each",
    ),
    "a deviation of 0": (
        {"preprocessing": lambda params: Preprocessing(mean=(0.5,), std=(0.0,))},
        "the-preprocessing-has-a-value-a-channel",
        "std holds 0.0; images are divided by it: give more than 0",
    ),
    "a factor for no parameter": (
        {"rate_factors": (RateFactor(pattern="scale", factor=0.1),)},
        "rate-factors-match-parameters",
        "the rate factor 'scale' matches no parameter; parameters are called like body.0.bias",
    ),
    "weights without a loader": (
        {"weights": lambda params: [Weights(tag="w", origin="o", license="l", pretrained_on="p")]},
        "weights-from-outside-are-offered-whole",
        "it offers weights 'w' and has no load_weights; write load_weights",
    ),
    "two weights of one tag": (
        {
            "weights": lambda params: (
                [Weights(tag="w", origin="o", license="l", pretrained_on="p")] * 2
            )
        },
        "weights-from-outside-are-offered-whole",
        "two weights have one tag: w, w; rename one",
    ),
    "members without a parameter": (
        {"members": lambda: ["a"]},
        "the-family-is-declared-whole",
        "it lists members and names no member parameter; set member",
    ),
    "a member that is no name": (
        {"params": Model, "member": "model", "members": lambda: ["a", 18]},
        "the-family-is-declared-whole",
        "members() holds 18; list names",
    ),
    "a member that is not a parameter": (
        {"params": Model, "member": "size"},
        "the-family-is-declared-whole",
        "member 'size' is not a parameter; parameters are model",
    ),
    "a member twice": (
        {"params": Model, "member": "model", "members": lambda: ["a", "b", "a"]},
        "the-family-is-declared-whole",
        "members() names a member twice; list each once",
    ),
}


@pytest.mark.filterwarnings("ignore:Lazy modules are a new feature:UserWarning")
@pytest.mark.parametrize("bad", BAD)
def test_each_bad_backbone_is_caught_with_advice(bad):
    changes, check, words = BAD[bad]
    assert words in failure(altered(BACKBONE, **changes), check)


def test_a_head_of_two_layers_conforms():
    spec = altered(BACKBONE, **of(TwoHeads), head=lambda net: net.head)
    assert [result.message for result in check_plugin(spec) if not result.ok] == []


def test_a_network_that_normalises_by_its_batch_needs_no_batch_of_one():
    spec = altered(BACKBONE, **of(Tracking), batch_statistics=lambda params: True)
    results = {result.check: result for result in check_plugin(spec)}
    assert results["one-image-is-a-batch"].message == "it normalises by statistics of its batch"
    assert all(result.ok for result in results.values())


def test_every_check_fails_for_a_bad_plugin():
    """But for CUDA, which has a test of its own that needs a device."""
    failing = {check for _, check, _ in BAD.values()}
    assert failing == names_of(CHECKS) - {"cpu-and-cuda-agree"}


@pytest.mark.gpu
def test_a_tensor_of_the_cpu_in_forward_is_caught():
    class Fixed(TinyNet):
        def features(self, x):
            return self.body(x) + torch.ones(16)

    message = failure(altered(BACKBONE, **of(Fixed)), "cpu-and-cuda-agree")
    assert "it raised RuntimeError" in message


def test_batch_statistics_that_are_declared_conform():
    spec = altered(BACKBONE, **of(Tracking), batch_statistics=lambda params: True)
    assert [result for result in check_plugin(spec) if not result.ok] == []


def test_a_failing_builder_is_reported_once():
    spec = altered(BACKBONE, build=lambda params, classes, channels, size: params.width)
    results = check_plugin(spec)
    assert [result.check for result in results if result.status == "failed"] == [
        "it-builds-and-gives-logits"
    ]
    skipped = {result.message for result in results if result.status == "skipped"}
    assert "there is nothing to look at, see it-builds-and-gives-logits" in skipped
