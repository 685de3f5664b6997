"""Small trials and their networks written again in float64 numpy, for the tests of references."""

from collections import OrderedDict

import numpy as np
import torch
from fake_subject import FakeSubject, modules_of
from torch import nn

from transferbench.specs import DiagnosticContext

CLASSES, N = 4, 50


def network(seed: int) -> nn.Module:
    """Two hidden layers and a head on 8 values."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = [
            ("flat", nn.Flatten()), ("stem", nn.Linear(8, 6)), ("relu", nn.ReLU()),
            ("block", nn.Linear(6, 6)), ("relu2", nn.ReLU()), ("head", nn.Linear(6, CLASSES)),
        ]  # fmt: skip
        return nn.Sequential(OrderedDict(layers)).eval()


def forward(state, images, layers=("stem", "block", "head")) -> np.ndarray:
    """The logits of ``network``, in float64 numpy; the features without the last layer."""
    values = images.double().numpy().reshape(len(images), -1)
    for name in layers:
        weight, bias = (state[f"{name}.{part}"].double().numpy() for part in ("weight", "bias"))
        values = values @ weight.T + bias
        values = values if name == "head" else np.maximum(values, 0)
    return values


def log_softmax(logits) -> np.ndarray:
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))


def loss_and_accuracy(state, images, labels) -> tuple[float, float]:
    """Cross-entropy in nats and accuracy, in float64 numpy."""
    logits, rows = forward(state, images), np.arange(len(labels))
    loss = -log_softmax(logits)[rows, labels.numpy()].mean()
    return float(loss), float((logits.argmax(axis=1) == labels.numpy()).mean())


def subject(seed: int, **fields) -> FakeSubject:
    """A trial on noise: seeds differ in their networks."""
    generator = torch.Generator().manual_seed(9)
    data = {}
    for split in ("train", "test"):
        images = torch.randn(N, 1, 2, 4, generator=generator)
        data[split] = images, torch.randint(0, CLASSES, (N,), generator=generator)
    nets = {"init": network(seed + 10), 1: network(seed + 20), "final": network(seed)}
    labels = data["test"][1].numpy()
    return FakeSubject(
        nets,
        modules_of(nets["final"]),
        data,
        labels=labels,
        build=network,
        job=f"net-{seed}",
        **fields,
    )


def measured(spec, *subjects, **params):
    context = DiagnosticContext(torch.device("cpu"), torch.Generator().manual_seed(0), 5)
    rows = spec.measure(spec.parse(params), subjects, context)
    return {(m.metric, *m.coordinates.values()): m.value for m in rows}
