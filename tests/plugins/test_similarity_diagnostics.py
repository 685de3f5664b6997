"""CKA, SVCCA, PWCCA and Procrustes against their formulas on features recorded by hooks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch
from fake_subject import FakeSubject
from pydantic import ValidationError
from torch import Tensor, nn

from transferbench.analysis import memory
from transferbench.engine.resources import lru_cache
from transferbench.errors import DeviceError
from transferbench.networks.modules import build_network, partition
from transferbench.records import Measurement
from transferbench.specs import DiagnosticContext, DiagnosticSpec
from transferbench_plugins.backbones import transferbench_backbones
from transferbench_plugins.diagnostics.features.canonical_correlation import PWCCA, SVCCA
from transferbench_plugins.diagnostics.features.cka import CKA
from transferbench_plugins.diagnostics.features.procrustes import PROCRUSTES

BACKBONES = {spec.name: spec for spec in transferbench_backbones()}
CONTEXT = DiagnosticContext(device=torch.device("cpu"), generator=torch.Generator(), seed=0)
SIDE, COUNT = 32, 72
SPECS = (CKA, SVCCA, PWCCA, PROCRUSTES)
PATHS = {"stem": "conv1", "layer1.0": "layer1.0", "layer2.0": "layer2.0", "layer3.0": "layer3.0"}
"""The layers whose outputs are the features of a fixup-resnet8."""


def images(seed: int = 0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    # Structured images: on noise the features of two networks are hardly similar.
    coarse = torch.randn(COUNT, 3, 4, 4, generator=draw)
    fine = nn.functional.interpolate(coarse, size=SIDE, mode="bilinear")
    return (fine + 1).contiguous(memory_format=torch.channels_last)


def trial(
    seed: int, backbone: str = "fixup-resnet8", classes: int = 5, **params: Any
) -> FakeSubject:
    spec = BACKBONES[backbone]
    net = build_network(
        spec,
        spec.parse(params or {"width": 4}),
        num_classes=classes,
        in_chans=3,
        image_size=SIDE,
        init_seed=seed,
        head_seed=seed,
    ).eval()
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=draw))
    return fake(net, partition(spec, net), job=f"{backbone} {seed}")


def fake(net: nn.Module, modules: Mapping[str, Sequence[str]], **fields: Any) -> FakeSubject:
    fields.setdefault("data", {"test": (images(), None)})
    return FakeSubject({"final": net}, modules, **fields)


def measured(spec: DiagnosticSpec, *trials: FakeSubject, **params: Any) -> list[Measurement]:
    return list(spec.measure(spec.parse(params), trials, CONTEXT))


def values(spec: DiagnosticSpec, *trials: FakeSubject, **params: Any) -> dict[tuple[Any, ...], Any]:
    measurements = measured(spec, *trials, **params)
    keyed = {
        (m.coordinates["module"], m.coordinates["other_module"]): m.value for m in measurements
    }
    assert len(keyed) == len(measurements)
    return keyed


def by_hand(subject: FakeSubject, *, pooled: bool = True) -> dict[str, np.ndarray]:
    """The features of a fixup-resnet8, in float64."""
    outputs: dict[str, Tensor] = {}
    handles = [
        subject.net.get_submodule(path).register_forward_hook(
            lambda _, __, output, module=module: outputs.update({module: output.clone()})
        )
        for module, path in PATHS.items()
    ]
    with torch.no_grad():
        subject.net(images())
    for handle in handles:
        handle.remove()
    features = {m: x.mean((2, 3)) if pooled else x.flatten(1) for m, x in outputs.items()}
    return {module: x.double().numpy() for module, x in features.items()}


def centred(x: np.ndarray) -> np.ndarray:
    return x - x.mean(0)


def u_centred(k: np.ndarray) -> np.ndarray:
    k, n = k.copy(), len(k)
    np.fill_diagonal(k, 0)
    sums = k.sum(0)
    k = k - (sums[:, None] + sums[None]) / (n - 2) + k.sum() / ((n - 1) * (n - 2))
    np.fill_diagonal(k, 0)
    return k


def linear(x: np.ndarray) -> np.ndarray:
    return centred(x) @ centred(x).T


def rbf(x: np.ndarray) -> np.ndarray:
    squared = ((x[:, None] - x[None]) ** 2).sum(-1)
    return np.exp(-squared / (2 * 0.25 * np.median(squared[np.triu_indices(len(x), 1)])))


def cka(k: np.ndarray, other: np.ndarray) -> float:
    k, other = u_centred(k), u_centred(other)
    return float((k * other).sum() / np.sqrt((k * k).sum() * (other * other).sum()))


def agree(
    similarities: Mapping[tuple[Any, ...], Any],
    a: Mapping[str, np.ndarray],
    b: Mapping[str, np.ndarray],
    formula: Callable[[np.ndarray, np.ndarray], float],
    tolerance: float = 1e-5,
) -> None:
    expected = {(m, o): formula(x, y) for m, x in a.items() for o, y in b.items()}
    assert similarities == pytest.approx(expected, abs=tolerance)


@pytest.fixture(scope="module")
def pair() -> tuple[FakeSubject, FakeSubject]:
    return trial(1), trial(2, classes=7)


# --- CKA --------------------------------------------------------------------------------------


@pytest.mark.parametrize("pooled", [True, False])
def test_cka_is_the_formula_for_all_pairs(
    pair: tuple[FakeSubject, FakeSubject], pooled: bool
) -> None:
    a, b = (by_hand(subject, pooled=pooled) for subject in pair)
    similarities = values(CKA, *pair, pooled=pooled)
    agree(similarities, a, b, lambda x, y: cka(linear(x), linear(y)))
    assert len(similarities) == 16
    assert similarities == values(CKA, *pair) or pooled
    assert max(similarities.values()) > 0.5
    assert min(similarities.values()) < 0.9


def test_an_rbf_kernel_takes_its_bandwidth(pair: tuple[FakeSubject, FakeSubject]) -> None:
    a, b = (by_hand(subject) for subject in pair)
    similarities = values(CKA, *pair, kernel="rbf", bandwidth=0.5, pooled=True)
    agree(similarities, a, b, lambda x, y: cka(rbf(x), rbf(y)), 1e-4)


def test_minibatches_are_averaged_before_the_ratio(pair: tuple[FakeSubject, FakeSubject]) -> None:
    a, b = (by_hand(subject, pooled=False) for subject in pair)

    def formula(x: np.ndarray, y: np.ndarray) -> float:
        def mean(k: np.ndarray, other: np.ndarray) -> float:
            parts = zip(np.split(k, 3), np.split(other, 3), strict=True)
            return float(
                np.mean([(u_centred(linear(p)) * u_centred(linear(q))).sum() for p, q in parts])
            )

        return mean(x, y) / float(np.sqrt(mean(x, x) * mean(y, y)))

    similarities = values(CKA, *pair, mode="minibatch", batch=24)
    agree(similarities, a, b, formula)


def test_no_batch_is_smaller_than_requested(pair: tuple[FakeSubject, FakeSubject]) -> None:
    """47 images in batches of at least 24 are one batch, as in exact mode."""
    whole = values(CKA, *pair, images=47)
    assert values(CKA, *pair, images=47, mode="minibatch", batch=24) == pytest.approx(whole)
    apart = values(CKA, *pair, images=47, mode="minibatch", batch=23)
    assert apart != pytest.approx(whole, abs=1e-3)


def test_an_rbf_kernel_keeps_the_width_of_the_first_batch(
    pair: tuple[FakeSubject, FakeSubject],
) -> None:
    first = values(CKA, *pair, images=36, kernel="rbf")
    similarities = values(CKA, *pair, kernel="rbf", mode="minibatch", batch=36)
    whole = values(CKA, *pair, kernel="rbf")
    assert similarities != pytest.approx(first, abs=1e-4)
    assert similarities == pytest.approx(whole, abs=0.2)


@pytest.mark.parametrize("mode", ["exact", "minibatch"])
def test_a_bfloat16_forward_pass_is_close(pair: tuple[FakeSubject, FakeSubject], mode: str) -> None:
    exact = values(CKA, *pair, mode=mode, batch=24)
    similarities = values(CKA, *pair, mode=mode, batch=24, precision="bf16")
    assert similarities == pytest.approx(exact, abs=0.02)
    assert similarities != exact


def test_both_networks_are_run_on_the_images_of_the_first(
    pair: tuple[FakeSubject, FakeSubject],
) -> None:
    first, second = pair
    elsewhere = replace(second, data={"test": (images(seed=9), None)})
    assert values(CKA, first, elsewhere) == values(CKA, first, second)


# --- SVCCA, PWCCA, Procrustes -----------------------------------------------------------------


def principal_components(x: np.ndarray, share: float) -> np.ndarray:
    """The principal components that explain this share of the variance."""
    sizes, directions = np.linalg.eigh(centred(x).T @ centred(x))
    sizes, directions = sizes[::-1], directions[:, ::-1]
    count = int(np.searchsorted(sizes.cumsum() / sizes.sum(), share)) + 1
    return centred(x) @ directions[:, :count]


def correlations(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return np.cos(scipy.linalg.subspace_angles(x, y))


def test_svcca_is_the_mean_cosine_of_the_angles_between_subspaces(
    pair: tuple[FakeSubject, FakeSubject],
) -> None:
    a, b = (by_hand(subject) for subject in pair)

    def formula(share: float) -> Callable[[np.ndarray, np.ndarray], float]:
        return lambda x, y: float(
            correlations(principal_components(x, share), principal_components(y, share)).mean()
        )

    agree(values(SVCCA, *pair), a, b, formula(0.99), 1e-4)
    agree(values(SVCCA, *pair, variance=0.8), a, b, formula(0.8), 1e-4)


def inverse_root(covariance: np.ndarray) -> np.ndarray:
    """The inverse square root on the range of the covariance, without rounding."""
    sizes, directions = np.linalg.eigh(covariance)
    there = sizes > 1e-10 * sizes.max()
    return (directions[:, there] / np.sqrt(sizes[there])) @ directions[:, there].T


def pwcca(x: np.ndarray, y: np.ndarray) -> float:
    """By whitening covariances, the usual formulation."""
    x, y = centred(x), centred(y)
    rank_x, rank_y = (np.linalg.matrix_rank(z, rtol=1e-5) for z in (x, y))
    x, y = (x, y) if rank_x <= rank_y else (y, x)
    white_x = inverse_root(x.T @ x)
    turn, rho, _ = np.linalg.svd(white_x @ x.T @ y @ inverse_root(y.T @ y), full_matrices=False)
    weights = np.abs((x @ white_x @ turn).T @ x).sum(1)
    return float((weights * rho).sum() / weights.sum())


def test_pwcca_weights_correlations_by_the_features_they_account_for(
    pair: tuple[FakeSubject, FakeSubject],
) -> None:
    a, b = (by_hand(subject) for subject in pair)
    agree(values(PWCCA, *pair), a, b, pwcca, 1e-3)


def test_procrustes_is_the_distance_after_the_best_rotation(
    pair: tuple[FakeSubject, FakeSubject],
) -> None:
    a, b = (by_hand(subject) for subject in pair)

    def formula(x: np.ndarray, y: np.ndarray) -> float:
        size = max(x.shape[1], y.shape[1])
        x, y = (
            np.pad(centred(z) / np.linalg.norm(centred(z)), ((0, 0), (0, size - z.shape[1])))
            for z in (x, y)
        )
        rotation, _ = scipy.linalg.orthogonal_procrustes(x, y)
        return float(np.linalg.norm(x @ rotation - y) ** 2)

    agree(values(PROCRUSTES, *pair), a, b, formula)


@pytest.mark.parametrize("spec", [SVCCA, PWCCA, PROCRUSTES], ids=lambda spec: spec.name)
def test_subspaces_need_more_images_than_features(
    spec: DiagnosticSpec, pair: tuple[FakeSubject, FakeSubject]
) -> None:
    measurements = {
        (m.coordinates["module"], m.coordinates["other_module"]): m
        for m in measured(spec, *pair, images=16)
    }
    assert measurements["layer3.0", "stem"].value is None
    assert measurements["layer3.0", "stem"].flag == "16 features need more than 16 images, found 16"
    assert measurements["stem", "layer3.0"].flag == "16 features need more than 16 images, found 16"
    assert measurements["layer2.0", "stem"].value is not None
    assert all(m.value is not None for m in measured(spec, *pair, images=17))


def test_directions_of_rounding_errors_are_ignored(pair: tuple[FakeSubject, FakeSubject]) -> None:
    """Repeated channels do not change the span."""
    first, _ = pair
    twin = trial(1)
    with torch.no_grad():
        twin.net.conv1.weight[3] = twin.net.conv1.weight[2]
    similarities = values(PWCCA, twin, first)
    assert similarities["stem", "stem"] == pytest.approx(1, abs=1e-5)


# --- all of them ------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_a_network_is_equal_to_itself(
    spec: DiagnosticSpec, pair: tuple[FakeSubject, FakeSubject]
) -> None:
    first, _ = pair
    copy = replace(first, job="another job")
    for other in (first, copy):
        similarities = values(spec, first, other)
        expected = 0 if spec is PROCRUSTES else 1
        assert [similarities[name, name] for name in PATHS] == pytest.approx(
            [expected] * 4, abs=1e-5
        )
        if spec is not PWCCA:  # weighted by one of the two networks
            turned = {(other, module): value for (module, other), value in similarities.items()}
            assert similarities == pytest.approx(turned, abs=1e-5)


def test_all_pairs_of_three_networks_take_three_passes() -> None:
    trials = [trial(seed) for seed in range(3)]
    context = CONTEXT._replace(once=lru_cache(2**30))
    for spec in SPECS:
        for pair in product(trials, trials):
            measurements = list(spec.measure(spec.parse({}), pair, context))
            assert measurements == measured(
                spec, *(replace(subject, loaded=[]) for subject in pair)
            )
    # Once for CKA, which centres, and once for each of the others, which prepare in their own way.
    assert [subject.loaded for subject in trials] == [["final"] * len(SPECS)] * 3


def test_other_images_or_parameters_need_another_pass() -> None:
    subject = trial(1)
    context = CONTEXT._replace(once=lru_cache(2**30))
    for params in ({}, {}, {"images": 20}, {"pooled": True}, {"precision": "bf16"}):
        list(CKA.measure(CKA.parse(params), (subject, subject), context))
    assert len(subject.loaded) == 4


def test_a_network_with_itself_is_run_once() -> None:
    both = trial(1)
    for params in ({}, {"mode": "minibatch", "batch": 12}):
        both.loaded.clear()
        values(CKA, both, both, **params)
        assert len(both.loaded) == 1


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_measurements_have_metric_unit_and_coordinates(
    spec: DiagnosticSpec, pair: tuple[FakeSubject, FakeSubject]
) -> None:
    (first, *_) = measured(spec, *pair, images=40)
    assert first.n == 40
    assert first.metric == spec.name
    assert list(first.coordinates) == ["module", "other_module"]
    units = {"cka": "cka", "procrustes": "squared distance"}
    assert first.unit == units.get(spec.name, "correlation")


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
@pytest.mark.parametrize("model", ["test_resnet", "test_vit"])
def test_any_backbone_is_measured_and_not_modified(spec: DiagnosticSpec, model: str) -> None:
    a, b = trial(1, "timm", model=model), trial(2, "timm", classes=3, model=model)
    before = [{k: v.clone() for k, v in subject.net.state_dict().items()} for subject in (a, b)]
    measurements = measured(spec, a, b)
    body = [module for module in a.modules if module != "head"]
    assert [m.coordinates["module"] for m in measurements] == [name for name in body for _ in body]
    assert all(
        (m.value is None) == bool(m.flag and "features need more" in m.flag) for m in measurements
    )
    assert sum(m.value is not None for m in measurements) >= 1
    for subject, state in zip((a, b), before, strict=True):
        assert not any(module.training for module in subject.net.modules())
        assert not any(module._forward_hooks for module in subject.net.modules())
        assert all(torch.equal(v, state[k]) for k, v in subject.net.state_dict().items())


def test_backbones_of_two_families_can_be_compared() -> None:
    similarities = values(CKA, trial(1), trial(1, "timm", model="test_vit"))
    assert {module for module, _ in similarities} == set(PATHS)
    assert {"stem", "blocks.0", "neck"} <= {other for _, other in similarities}


# --- undefined values -------------------------------------------------------------------------


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_features_that_do_not_vary_are_flagged(spec: DiagnosticSpec) -> None:
    dead = trial(1)
    with torch.no_grad():
        dead.net.conv1.weight.zero_()
    measurements = measured(spec, dead, trial(2))
    assert {m.flag for m in measurements} == {"the features do not vary between images"}
    assert len(measurements) == 16


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_a_diverged_network_is_flagged(spec: DiagnosticSpec) -> None:
    broken = trial(1)
    with torch.no_grad():
        broken.net.layer2[0].conv1.weight[0, 0, 0, 0] = torch.nan
    measurements = measured(spec, trial(2), broken)
    flags = {m.coordinates["other_module"]: m.flag for m in measurements}
    diverged = "the features are not finite: diverged"
    assert flags == {"stem": None, "layer1.0": None, "layer2.0": diverged, "layer3.0": diverged}


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_a_module_without_an_output_is_flagged(spec: DiagnosticSpec) -> None:
    subject = trial(1)
    modules = {"scale": ["bias1"], **{k: v for k, v in subject.modules.items() if k != "stem"}}
    measurements = measured(spec, replace(subject, modules=modules), trial(2))
    flags = {m.coordinates["module"]: m.flag for m in measurements}
    assert flags.pop("scale") == "no layer of module 'scale' is called in a forward pass"
    assert set(flags.values()) == {None}


def test_three_images_are_too_few_for_an_unbiased_estimate(
    pair: tuple[FakeSubject, FakeSubject],
) -> None:
    first, second = pair
    few = replace(first, data={"test": (images()[:3], None)})
    measurements = measured(CKA, few, second)
    assert {(m.flag, m.n) for m in measurements} == {
        ("debiased CKA needs 4 images or more, found 3", 3),
    }


@pytest.mark.parametrize(
    "params",
    [{"images": 3}, {"batch": 3}, {"bandwidth": 0}, {"kernel": "cosine"}, {"mode": "fast"}],
)
def test_invalid_parameters_are_refused(params: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        CKA.parse(params)


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)
def test_the_cost_is_two_forward_passes(spec: DiagnosticSpec) -> None:
    assert spec.cost(spec.parse({})) == 2
    assert spec.accepts(spec.tiny)
    assert (spec.subjects, spec.needs) == ("pair", {"images"})


@pytest.mark.parametrize("spec", [CKA, SVCCA, PROCRUSTES], ids=lambda spec: spec.name)
def test_more_features_than_fit_into_memory_are_refused(
    spec: DiagnosticSpec, pair: tuple[FakeSubject, FakeSubject], monkeypatch: pytest.MonkeyPatch
) -> None:
    n, batch = len(pair[0].images("test")), 2
    monkeypatch.setattr(
        "transferbench_plugins.diagnostics.features._module_features.BATCH_SIZE", batch
    )
    features = by_hand(pair[0], pooled=False)
    sizes = [values[0].size * 4 for values in features.values()]
    needed = n * (sum(sizes) + max(sizes)) - batch * sum(sizes)
    for free, message in ((needed, None), (needed - 1, f"the features of {n} images take")):
        monkeypatch.setattr(memory, "free_bytes", lambda device, free=free: free)
        if message is None:
            measured(spec, *pair, pooled=False)
            continue
        with pytest.raises(DeviceError, match=message) as caught:
            measured(spec, *pair, pooled=False)
        assert str(caught.value).endswith(
            "0.0 GB are free on cpu; give the diagnostic fewer images, pooled: true or (cka) mode: "
            "minibatch"
        )


def test_free_memory_is_what_the_system_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "OWN_GROUPS", tmp_path / "cgroup")
    assert memory.free_bytes(torch.device("cpu")) is None
    (tmp_path / "meminfo").write_text("MemFree: 3 kB\nMemAvailable:   7 kB\n")
    assert memory.free_bytes(torch.device("cpu")) == 7 * 1024
    memory.refuse_beyond_memory(7 * 1024, torch.device("cpu"), "these", "do less")


@pytest.mark.parametrize(
    ("line", "folder", "files", "free"),
    [
        ("0::/job", "job", {"memory.max": "5000", "memory.current": "3000"}, 2000 + 500),
        ("0::/job", "", {"memory.max": "5000", "memory.current": "3000"}, 2000 + 500),
        ("0::/job", "job", {"memory.max": "max", "memory.current": "3000"}, 7 * 1024),
        ("4:memory:/job", "memory/job",
         {"memory.limit_in_bytes": "5000", "memory.usage_in_bytes": "1000"}, 4000 + 500),
        ("4:cpu:/job", "memory/job", {}, 7 * 1024),
    ],
)  # fmt: skip
def test_free_memory_ends_where_the_limit_of_a_container_does(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    line: str,
    folder: str,
    files: dict[str, str],
    free: int,
) -> None:
    (tmp_path / "meminfo").write_text("MemAvailable:   7 kB\n")
    (tmp_path / "cgroup").write_text(f"1:name=systemd:/\n{line}\n")
    group = tmp_path / "groups" / folder
    group.mkdir(parents=True)
    stat = "anon 1\ninactive_file 500\ntotal_inactive_file 500\n"
    for name, text in {**files, "memory.stat": stat}.items():
        (group / name).write_text(text)
    monkeypatch.setattr(memory, "MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "OWN_GROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(memory, "GROUPS", tmp_path / "groups")
    assert memory.free_bytes(torch.device("cpu")) == free
