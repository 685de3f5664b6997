"""A bad plugin for each check of a diagnostic."""

import contextlib
import itertools
import socket
from functools import partial
from typing import Literal
from unittest import SkipTest

import numpy as np
import pytest
import torch
from conforming import DIAGNOSTIC, NORM, altered, failure, names_of, same_answers, same_part
from fake_subject import FakeSubject

from transferbench import reporting
from transferbench.conformance import checks_of
from transferbench.conformance.diagnostics import CHECKS
from transferbench.records import Measurement
from transferbench.specs import Params, ReportPart, Subject

COUNTER = itertools.count()


def measurement(metric="same", value=0.5, **more):
    return Measurement(**{"metric": metric, "value": value, "unit": "fraction", "n": 4, **more})


def giving(*values):
    """A diagnostic that yields these measurements for any subjects."""
    return {"measure": lambda params, subjects, context: list(values)}


def printing(params, subjects, context):
    print("hello")  # noqa: T201  # what is caught
    return DIAGNOSTIC.measure(params, subjects, context)


def recomputing(*values):
    """``recompute`` of these measurements for any trials."""
    return {"recompute": lambda params, trials: list(values)}


def recomputing_from_history():
    """The same number of epochs, measured and recomputed, where there is a history."""

    def epochs(params, trials, context=None):
        yield measurement(value=float(len(trials[0].history)))

    return {"measure": epochs, "recompute": epochs, "needs": frozenset({"history"})}


def reporting_as(build, metric="same"):
    return {"report": ReportPart(build=build, metrics=frozenset({metric}))}


def draw_text(scope):
    series = reporting.Series("", [0], ["high"], reporting.LineStyle())
    figure = reporting.PanelFigure("text for numbers", [[reporting.Panel("", [series])]])
    return reporting.Part("Broken", [reporting.Drawing(figure, "")])


def after(act):
    """The good diagnostic, after something it should not do to the first subject."""

    def measure(params, subjects, context):
        act(subjects[0])
        yield from same_answers(params, subjects, context)

    return {"measure": measure}


def spoil_weights(subject):
    with torch.no_grad():
        next(subject.network().parameters()).zero_()


def leave_train_mode(subject):
    subject.network().train()


def leave_gradients(subject):
    net = subject.network()
    net(subject.images("test", 2)).sum().backward()


def leave_a_hook(subject):
    subject.network().register_forward_hook(lambda *_: None)


def fine_tune(subject):
    net = subject.network()
    before = {name: values.clone() for name, values in net.state_dict().items()}
    net(subject.images("test", 2)).sum().backward()
    torch.optim.SGD(net.parameters(), lr=0.1).step()
    net.zero_grad()
    net.load_state_dict(before)


def spoil_logits(subject):
    logits = subject.logits
    logits[0] += 1


def ask_the_network(subject):
    with contextlib.suppress(OSError):
        socket.create_connection(("192.0.2.1", 443))


def exact_products(subject):
    torch.set_float32_matmul_precision("medium")


def of_trials_alone(params, subjects, context):
    if any(len(subject.history) == 0 or subject.job == _source(subject) for subject in subjects):
        return
    yield from same_answers(params, subjects, context)


def _source(subject):
    """The job of the pre-training, which has no initialization in its payload."""
    return subject.job if "initialization" not in subject._payload else None


def of_the_first(params, subjects, context):
    yield measurement(value=float(subjects[0].logits.mean()))


def without_itself(params, subjects, context):
    a, b = subjects
    yield measurement(value=0.25 if a.job == b.job else 0.75)


UNCHECKED = Measurement.model_construct(
    metric="same", value=float("nan"), unit="1", n=1, coordinates={}
)


def of_cached_logits(params, subjects, context):
    a, b = (context.once("logits", partial(getattr, each, "logits")) for each in subjects)
    yield measurement(value=float((a.argmax(1) == b.argmax(1)).mean()))


class MeanParams(Params):
    images: int = 8
    absolute: bool = False
    outputs: Literal["all", "first"] = "all"


def mean_with(*, without="", spoilt=False):
    """A cached mean of logits whose key lacks one of what it depends on."""

    def measure(params, subjects, context):
        (subject,) = subjects
        modules = tuple(subject.state())  # of one network alone
        key = {"modules": modules, "job": subject.job, "seed": context.seed}
        key = tuple({**key, **params.model_dump(), without: None}.items())
        (value,) = result = context.once(key, partial(mean, params, subject, context.seed))
        if spoilt:
            result[0] = value + 1
        yield measurement("mean", value)

    return altered(NORM, params=MeanParams, measure=measure)


def mean(params, subject, seed):
    logits = subject.logits[: params.images, : 1 if params.outputs == "first" else None]
    return [float((np.abs(logits) if params.absolute else logits).mean()) + seed]


def of_classes_alone(params, subjects, context):
    assert subjects[0].labels.ndim == 1, "one label an image"
    yield from same_answers(params, subjects, context)


def of_finite_logits(params, subjects, context):
    yield measurement(value=float(subjects[1].logits.mean()))


KEYS = "results-in-the-cache-are-what-their-keys-say"
BAD = {
    "a diagnostic that prints": (
        {"measure": printing},
        "nothing-is-printed",
        "it printed 'hello'; take the print out, or use logging",
    ),
    "nothing measured": (
        giving(),
        "it-measures-finished-trials",
        "it measures nothing on trials of a network with batch statistics; yield a Measurement",
    ),
    "it raises": (
        {"measure": lambda params, subjects, context: [subjects[0].loggits]},
        "it-measures-finished-trials",
        "it raised AttributeError: 'FinishedTrial' object has no attribute 'loggits'",
    ),
    "one subject for a pair": (
        {"subjects": "one", "identical": {}, "symmetric": frozenset()},
        "it-measures-finished-trials",
        "it raised ValueError: not enough values to unpack (expected 2, got 1)",
    ),
    "plain dicts": (
        giving({"metric": "same", "value": 0.5}),
        "it-yields-measurements",
        "it yields dict; yield transferbench.records.Measurement",
    ),
    "an unchecked measurement": (
        giving(UNCHECKED),
        "it-yields-measurements",
        "is not finite: give None and a flag that says why",
    ),
    "a number out of nothing": (
        giving(measurement(n=0)),
        "values-have-a-unit-and-an-n",
        "same is 0.5 out of n=0 on a network with batch statistics; count in n",
    ),
    "a blank unit": (
        giving(measurement(unit=" ")),
        "values-have-a-unit-and-an-n",
        "same has no unit; state it; 1 is a unit",
    ),
    "two units": (
        giving(measurement(), measurement(unit="percent", coordinates={"class": 1})),
        "a-metric-has-one-unit",
        "same is in 'fraction' and in 'percent'; give each unit its own metric",
    ),
    "an interval elsewhere": (
        giving(measurement(low=0.6, high=0.7, interval="made")),
        "values-lie-within-their-intervals",
        "same is 0.5 with the interval 0.6..0.7; put low and high around the value",
    ),
    "a value beyond its range": (
        giving(measurement()) | {"ranges": {"same": (0.6, 1)}},
        "values-lie-in-their-ranges",
        "ranges states 0.6..1; correct the formula or the statement",
    ),
    "one place twice": (
        giving(
            measurement(coordinates={"epoch": 1}), measurement(coordinates={"epoch": 1}, value=0.6)
        ),
        "a-place-is-measured-once",
        "same at {'epoch': 1} is measured 2 times on a network with batch statistics; dist",
    ),
    "another number each time": (
        {"measure": lambda params, subjects, context: [measurement(value=float(next(COUNTER)))]},
        "the-same-seed-gives-the-same-numbers",
        "same differs when it is measured again on a network with batch statistics; draw from",
    ),
    "a key of the cache without the trial": (
        {"measure": of_cached_logits},
        KEYS,
        (
            "same differs on a network with batch statistics where context.once holds results of "
            "other diagnoses; put all that a result depends on into its key, such as subject.job"
        ),
    ),
    "spoilt weights": (
        after(spoil_weights),
        "networks-are-left-as-they-were",
        "conv1.weight of a network with batch statistics were changed; load the state back",
    ),
    "train mode": (
        after(leave_train_mode),
        "networks-are-left-as-they-were",
        "a network with batch statistics is left in train mode; call net.eval() at the end",
    ),
    "gradients": (
        after(leave_gradients),
        "networks-are-left-as-they-were",
        "gradients are left on a network with batch statistics; use torch.autograd.grad",
    ),
    "a hook": (
        after(leave_a_hook),
        "networks-are-left-as-they-were",
        "a hook is left on a network with batch statistics; remove its handle at the end",
    ),
    "a training": (
        after(fine_tune),
        "nothing-is-trained",
        "an optimizer stepped on the parameters of a network with batch statistics; measure the",
    ),
    "spoilt logits": (
        after(spoil_logits),
        "arrays-are-left-as-they-were",
        "the subject's logits were changed; work on a copy",
    ),
    "images without declared needs": (
        after(lambda subject: subject.images("train", 2)),
        "what-it-reads-is-declared",
        "it reads images and declares needs=['logits']; add 'images' to needs",
    ),
    "the initial state without declared needs": (
        after(lambda subject: subject.state("init")),
        "what-it-reads-is-declared",
        "it reads init_state and declares needs=['logits']; add 'init_state' to needs",
    ),
    "a perturbation that its id does not hold": (
        after(lambda subject: subject.perturbed("identity", {}, 0, "test", 2))
        | {"needs": frozenset({"images", "logits"})},
        "perturbations-are-declared",
        "identity is applied, but left out by perturbations(params); return the name of each",
    ),
    "a global draw": (
        after(lambda subject: np.random.rand()),  # noqa: NPY002  # what is forbidden
        "global-randomness-is-untouched",
        "the global generator of numpy.random was moved; draw from context.generator",
    ),
    "a download": (
        after(ask_the_network),
        "no-network-is-used",
        "it tried to reach ('192.0.2.1', 443) on the network; measure what the subjects hold",
    ),
    "a setting of torch": (
        after(exact_products),
        "what-everybody-shares-is-kept",
        "torch.get_float32_matmul_precision() went from highest to medium; set it in a with",
    ),
    "nothing of the source": (
        {"measure": of_trials_alone},
        "the-source-network-can-be-measured",
        "it measures nothing on the source network of a network with batch statistics; yield",
    ),
    "the images of external weights": (
        after(lambda subject: subject.images("train", 2))
        | {"needs": frozenset({"images", "logits"}), "needs_of_source": "state"},
        "external-weights-can-be-measured",
        "on external weights of a network with batch statistics it fails: AttributeError:",
    ),
    "several labels forgotten": (
        {"measure": of_classes_alone},
        "a-task-of-several-labels-is-measured-or-refused",
        "trials of a task with several labels an image it fails: AssertionError: one label an",
    ),
    "a diverged trial forgotten": (
        {"measure": of_finite_logits},
        "a-diverged-trial-is-flagged",
        "a diverged trial of a network with batch statistics it fails: invalid Measurement: value",
    ),
    "a wrong answer for one network": (
        {"measure": without_itself},
        "one-network-with-itself-gives-known-answers",
        (
            "a network with batch statistics with itself gives same = 0.25, and identical states "
            "1; correct the formula or the statement"
        ),
    ),
    "an answer that is never given": (
        {"identical": {"sane": 1.0}},
        "one-network-with-itself-gives-known-answers",
        "identical states sane, which has no value on any trial; drop it, or measure it",
    ),
    "sides that matter": (
        {"measure": of_the_first},
        "symmetric-metrics-stay-when-networks-exchange",
        "when its two trials are exchanged; correct the formula, or take the metric off",
    ),
    "nothing recomputed": (
        {"recompute": lambda params, trials: []},
        "recomputed-values-are-those-measured",
        "it recomputes nothing of trials of a network with batch statistics; yield values of",
    ),
    "a value that was not measured": (
        recomputing(measurement("other")),
        "recomputed-values-are-those-measured",
        "other is recomputed, but not measured, on a network with batch statistics; yield metrics",
    ),
    "a part of a metric": (
        giving(measurement(), measurement(coordinates={"k": 1})) | recomputing(measurement()),
        "recomputed-values-are-those-measured",
        "same at k=1 is measured, but not recomputed, on a network with batch statistics; recom",
    ),
    "another value": (
        giving(measurement(value=0.5)) | recomputing(measurement(value=0.25)),
        "recomputed-values-are-those-measured",
        (
            "same is 0.5 (n=4) on a network with batch statistics, and 0.25 (n=4) when it is "
            "recomputed; use one function of predictions and history in both"
        ),
    ),
    "another count": (
        giving(measurement(n=4)) | recomputing(measurement(n=5)),
        "recomputed-values-are-those-measured",
        "same is 0.5 (n=4) on a network with batch statistics, and 0.5 (n=5) when it is",
    ),
    "logits that a submission lacks": (
        {"recompute": lambda params, trials: [trials[0].logits]},
        "recomputed-values-are-those-measured",
        "it raised AttributeError: 'PackedTrial' object has no attribute 'logits'",
    ),
    "a history that a submission may lack": (
        recomputing_from_history(),
        "recomputed-values-are-those-measured",
        "it raised TypeError: object of type 'NoneType' has no len()",
    ),
    "a part of text": (
        reporting_as(lambda scope: "a figure"),
        "the-report-shows-its-measurements",
        "report.build returned str for measured trials; return transferbench.reporting.Part",
    ),
    "an empty part": (
        reporting_as(lambda scope: scope.part("Equal", lambda scope, views: [])),
        "the-report-shows-its-measurements",
        (
            "the part 'Equal' shows nothing of measured trials (checked: this run holds no "
            "measurement of it; see the jobs); give it a figure or a table"
        ),
    ),
    "a metric that the report does not get": (
        reporting_as(same_part, "sane"),
        "the-report-shows-its-measurements",
        "sane is named in report.metrics, but not measured; name metrics that it yields",
    ),
    "a figure that cannot be drawn": (
        reporting_as(draw_text),
        "the-report-shows-its-measurements",
        "it raised AttributeError: 'str' object has no attribute",
    ),
    "a metric that is not declared": (
        {"metrics": frozenset({"other"})},
        "metrics-are-declared",
        "is measured, but not in metrics; declare all that measure yields",
    ),
    "a cost in words": (
        {"cost": lambda params: "cheap"},
        "the-cost-is-a-number",
        "cost returned 'cheap'; return forward passes: a finite number from 0",
    ),
    "a negative cost": (
        {"cost": lambda params: -1.0},
        "the-cost-is-a-number",
        "cost returned -1.0; return forward passes: a finite number from 0",
    ),
}


@pytest.mark.parametrize("bad", BAD)
def test_each_bad_diagnostic_is_caught_with_advice(bad):
    changes, check, words = BAD[bad]
    assert words in failure(altered(DIAGNOSTIC, **changes), check)


def test_every_check_fails_for_a_bad_plugin():
    assert {check for _, check, _ in BAD.values()} == names_of(CHECKS)


@pytest.mark.parametrize(
    ("mistake", "words"),
    [
        ({"without": "job"}, "mean differs on other trials of a network with batch statistics"),
        ({"without": "seed"}, "mean differs with another seed on a network with"),
        ({"without": "images"}, "with MeanParams(images=4, absolute=False, outputs='all') on"),
        ({"without": "absolute"}, "with MeanParams(images=8, absolute=True, outputs='all') on"),
        ({"without": "outputs"}, "with MeanParams(images=8, absolute=False, outputs='first') on"),
        ({"spoilt": True}, "mean differs on a network with batch statistics once more"),
    ],
    ids=str,
)
def test_a_key_lacks_nothing_that_the_result_depends_on(mistake, words):
    assert words in failure(mean_with(**mistake), KEYS)


def test_a_failure_by_a_wrong_key_is_told():
    def measure(params, subjects, context):
        names = context.once("names", lambda: list(subjects[0].state()))
        yield measurement(value=float(sum(subjects[0].state()[name].numel() for name in names)))

    message = failure(altered(NORM, measure=measure), KEYS)
    assert f"{KEYS}: it fails (KeyError: " in message
    assert ") on a network without norms where context.once holds results of other" in message


def test_whole_keys_conform_and_no_key_is_skipped():
    cached, uncached = ([check for check in checks_of(spec) if check.name == KEYS]
                        for spec in (mean_with(), NORM))  # fmt: skip
    cached[0]()
    with pytest.raises(SkipTest, match="it caches nothing"):
        uncached[0]()


def test_the_fake_subject_has_all_members_of_the_protocol():
    members = {name for name in dir(Subject) if not name.startswith("_")}
    assert {"labels", "network", "perturbed"} <= members
    assert members <= set(dir(FakeSubject()))


def test_a_part_of_none_is_skipped():
    spec = altered(DIAGNOSTIC, **reporting_as(lambda scope: None))
    checks = {check.name: check for check in checks_of(spec)}
    with pytest.raises(SkipTest, match="its part has nothing to show of the kit's trials"):
        checks["the-report-shows-its-measurements"]()


def test_a_diagnostic_of_one_subject_can_state_no_answers_for_two():
    spec = altered(NORM, identical={"norm": 0.0})
    message = failure(spec, "one-network-with-itself-gives-known-answers")
    assert "measures one subject and states answers for two (identical); drop identical" in message
