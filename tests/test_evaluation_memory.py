"""An evaluation takes as many images at once as memory holds."""

import pytest
import torch
from training_groups import Layers, training_of

from transferbench.training import model_outputs


class Small(Layers):
    """A network for which memory runs out with more than ``limit`` images in evaluation."""

    limit = 2

    def __init__(self, seed):
        super().__init__(seed)
        self.sizes = []

    def forward(self, images):
        if not self.training:
            self.sizes.append(len(images))
            if len(images) > self.limit:
                raise torch.OutOfMemoryError("CUDA out of memory")
        return super().forward(images)


def evaluated(network):
    training = training_of(0, {"network": network})
    return training, training.train(data_seed=1, augmentation_seed=2)


def test_an_evaluation_out_of_memory_goes_on_with_fewer_images():
    training, result = evaluated(Small)
    _, expected = evaluated(Layers)
    for row, expected_row in zip(result.history, expected.history, strict=True):
        assert row == pytest.approx(expected_row, abs=1e-6)
    # Once of 6 and of 3 images; from there on one at a time.
    assert [size for size in training.net.sizes if size > 1] == [6, 3]
    assert training.execution.evaluation_batch == 1


def test_outputs_out_of_memory_are_computed_of_fewer_images():
    training = training_of(0, {"network": Small})
    training.net.eval()
    pipeline = training.data.test.pipeline
    outputs = model_outputs(training.net, training.net.head, pipeline, training.execution)
    training.net.limit = 100
    expected = model_outputs(training.net, training.net.head, pipeline, training.execution)
    for name, values in expected.items():
        torch.testing.assert_close(outputs[name], values)


def test_an_image_that_does_not_fit_raises(monkeypatch):
    monkeypatch.setattr(Small, "limit", 0)
    with pytest.raises(torch.OutOfMemoryError):
        evaluated(Small)
