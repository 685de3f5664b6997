"""What every perturbation of images that is not a permutation promises, at all sizes."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from perturbed_images import SPECS, perturb, smooth_images

from transferbench.data.perturbation import compile_perturbation
from transferbench.data.pipeline import ImagePipeline
from transferbench.errors import SuiteError

# Three take an image not always further at a higher published severity: saturate takes colour away
# before it adds some, elastic bends further at low severities but more gently, and glass blur
# trades the length of a move against the number of moves.
UNORDERED = {"elastic", "glass-blur", "saturate"}
# Two orders of float32 sums; phases of weak frequencies are the most sensitive to them.
CLOSE = {"rtol": 0, "atol": 2e-5}
GRADED = sorted(name for name, spec in SPECS.items() if "severity" in spec.params.model_fields)
DRAWN = {
    "amplitude-mix", "cue-conflict", "elastic", "fog", "gaussian-noise", "glass-blur",
    "impulse-noise", "motion-blur", "phase-noise", "shot-noise", "snow", "speckle-noise",
}  # fmt: skip
IDENTITIES = {
    "amplitude-mix": {"share": 0},
    "cue-conflict": {"radius": 100},
    "high-pass": {"radius": 0.5},
    "low-pass": {"radius": 100},
    "phase-noise": {"level": 0},
}


def shapes():
    for name, spec in SPECS.items():
        for side in (8, 16, 32, 224):
            # Severity 1 where an image is large: glass blur and defocus take longest at the end.
            params = {"severity": 1} if side == 224 and name in GRADED else spec.tiny
            for channels in (1, 3):
                if not spec.check(spec.parse(params), (side, side, channels)):
                    yield pytest.param(name, side, channels, params, id=f"{name}-{side}-{channels}")


@pytest.mark.parametrize(("name", "side", "channels", "params"), list(shapes()))
def test_an_image_depends_on_nothing_but_itself_its_id_and_the_seed(name, side, channels, params):
    images = smooth_images(2, side, channels)
    before = images.clone()
    state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002  # the state that must not move
    actual = perturb(name, images, ids=[7, 2], **params)
    assert torch.equal(images, before)
    assert torch.equal(torch.get_rng_state(), state[0])
    np.testing.assert_array_equal(np.random.get_state()[1], state[1])  # noqa: NPY002  # as above
    assert (actual.dtype, actual.shape) == (torch.float32, images.shape)
    assert actual.isfinite().all()
    if SPECS[name].stage == "pixels":
        assert 0 <= actual.min() <= actual.max() <= 1
    alone = perturb(name, images[1:], ids=[2], **params)
    torch.testing.assert_close(actual[1:], alone, **CLOSE)
    assert (actual - images).abs().max() > 1e-4


@pytest.mark.parametrize("name", sorted(SPECS))
def test_draws_differ_by_seed_and_by_image_where_there_are_any(name):
    images = smooth_images(1, 16).repeat(6, 1, 1, 1)
    first = perturb(name, images, seed=3, **SPECS[name].tiny)
    assert torch.equal(first, perturb(name, images, seed=3, **SPECS[name].tiny))
    other = perturb(name, images, seed=4, **SPECS[name].tiny)
    # Not every pair: two directions of a short motion may meet the same pixels.
    for a, b in ((first, other), (first[:-1], first[1:])):
        assert ((a - b).abs().max() > 1e-3) == (name in DRAWN)


@pytest.mark.parametrize("name", sorted(SPECS))
def test_memory_layout_does_not_matter(name):
    images = smooth_images(2, 16)
    rows = images.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)
    actual = perturb(name, rows, **SPECS[name].tiny)
    torch.testing.assert_close(actual, perturb(name, images, **SPECS[name].tiny), **CLOSE)


@pytest.mark.parametrize("side", [16, 32, 96])
@pytest.mark.parametrize("name", [name for name in GRADED if name not in UNORDERED])
def test_a_higher_severity_takes_images_further(name, side):
    images = smooth_images(max(4, 400 // side), side)
    distances = [
        (perturb(name, images, severity=s) - images).square().mean().sqrt().item()
        for s in range(1, 6)
    ]
    # Within a published table single steps may lie a little below their neighbour.
    assert all(b > 0.75 * a for a, b in pairwise(distances)), distances
    assert distances[4] > 1.2 * distances[0], distances


@pytest.mark.parametrize(
    ("name", "field", "values"),
    [
        ("amplitude-mix", "share", [0, 0.25, 0.5, 1]),
        ("phase-noise", "level", [0, 0.1, 0.3, 0.6, 1]),
        ("low-pass", "radius", [12, 8, 4, 2, 0]),
        ("cue-conflict", "radius", [12, 8, 4, 2, 0]),
        ("high-pass", "radius", [0, 1, 3, 6, 12]),
    ],
)
def test_severity_orders_the_fourier_perturbations(name, field, values):
    images, spec = smooth_images(12, 16), SPECS[name]
    distances = [
        (perturb(name, images, **{field: value}) - images).square().mean().item()
        for value in values
    ]
    severities = [spec.severity(spec.parse({field: value}), (16, 16, 3)) for value in values]
    assert distances == sorted(distances)
    assert severities == sorted(severities)
    assert severities[0] == distances[0] == 0
    assert len(set(severities)) == len(values)


@pytest.mark.parametrize("name", sorted(IDENTITIES))
def test_severity_0_is_exactly_the_identity(name):
    images, spec = smooth_images(3, 16), SPECS[name]
    actual = perturb(name, images, **IDENTITIES[name])
    assert torch.equal(actual, images)
    assert actual.data_ptr() != images.data_ptr()
    assert spec.severity(spec.parse(IDENTITIES[name]), (16, 16, 3)) == 0


@pytest.mark.parametrize("name", sorted(SPECS))
def test_every_other_severity_is_above_0(name):
    spec = SPECS[name]
    assert spec.severity(spec.parse(spec.tiny), (16, 16, 3)) > 0


@pytest.mark.parametrize("name", GRADED)
def test_severities_are_the_published_five(name):
    spec = SPECS[name]
    assert [spec.severity(spec.parse({"severity": s}), (32, 32, 3)) for s in (1, 5)] == [1, 5]
    assert not any(spec.accepts({"severity": s}) for s in (0, 6, 2.5))
    assert not spec.accepts({})


@pytest.mark.parametrize("name", [name for name in GRADED if name != "saturate"])
def test_images_below_the_kernels_are_refused(name):
    spec = SPECS[name]
    with pytest.raises(SuiteError) as caught:
        compile_perturbation(spec, spec.parse(spec.tiny), (7, 9, 3), 0)
    assert str(caught.value) == (
        f"perturbation {name!r} does not fit 7 x 9 x 3 images: a side of 7 px is below its "
        "kernels; use images of 8 px or more"
    )


@pytest.mark.parametrize("name", ["grayscale", "saturate"])
def test_grey_images_have_no_colour_to_take(name):
    spec = SPECS[name]
    with pytest.raises(SuiteError, match="1 channel has no colours; use it on images of 3 chan"):
        compile_perturbation(spec, spec.parse(spec.tiny), (8, 8, 1), 0)


@pytest.mark.parametrize("name", sorted(SPECS))
def test_rectangles_are_images_too(name):
    images = smooth_images(2, 24)[:, :, :18]
    actual = perturb(name, images, **SPECS[name].tiny)
    assert actual.shape == images.shape
    assert actual.isfinite().all()


@pytest.mark.parametrize("name", sorted(SPECS))
@pytest.mark.parametrize("level", [0.0, 1.0])
def test_flat_images_give_finite_ones(name, level):
    actual = perturb(name, torch.full((2, 3, 16, 16), level), **SPECS[name].tiny)
    assert actual.isfinite().all()


@pytest.mark.parametrize("name", ["gaussian-noise", "low-pass"])
def test_a_batch_of_the_pipeline_is_perturbed_where_its_stage_says(name):
    spec, ids = SPECS[name], np.asarray([5, 9])
    images = smooth_images(2, 16)
    decoded = (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
    mean, std = [0.2, 0.4, 0.6], [0.5, 0.25, 0.2]
    compiled = compile_perturbation(spec, spec.parse(spec.tiny), (16, 16, 3), 3)
    actual = ImagePipeline(decoded, mean, std, compiled, image_ids=ids).batch(torch.arange(2))
    m, s = (torch.tensor(v).view(1, 3, 1, 1) for v in (mean, std))
    if spec.stage == "pixels":
        expected = (perturb(name, images, ids=ids, **spec.tiny) - m) / s
    else:
        expected = perturb(name, (images - m) / s, ids=ids, **spec.tiny)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("side", "table"), [(32, "small"), (84, "small"), (85, "large")])
def test_the_nearer_of_the_two_published_tables_is_used(side, table):
    images = torch.full((40, 1, side, side), 0.5)
    actual = perturb("gaussian-noise", images, severity=1)
    expected = {"small": 0.04, "large": 0.08}[table]
    # The deviation of a sample of n normal values is known to 1 / sqrt(2 n).
    within = 5 * expected / math.sqrt(2 * images.numel())
    assert abs((actual - images).std().item() - expected) < within
