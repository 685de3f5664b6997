"""The statement of scope names source networks, test sets, replicates, levels and families."""

from test_claims import GAIN, record, suite, table

from transferbench.claims import image_counts, scope_of

CLAIMS = {
    "a": GAIN | {"source": "paper 3.1; C2"}, "b": GAIN | {"family": "C2"}, "c": GAIN,
    "null": GAIN | {"control": True},
}  # fmt: skip


def test_one_source_network_and_a_fixed_test_set_are_said():
    images = {"near": 1000, "far": 12345}
    lines = list(scope_of(suite(CLAIMS), images, ()))
    assert lines[0] == "Source networks: source (digits): one network, shared by all replicates."
    assert lines[1] == (
        "Test sets: far (digits, 12,345 images); near (digits, 1,000 images); "
        "the same images for every network of a target."
    )
    assert lines[2] == "Replicates: 3 of every trial, each with its own seeds."
    assert "conditional on the one source network and the test images" in lines[3]
    assert "two one-sided tests at 2.5%" in lines[4]
    assert lines[5] == "Claims: 3 in 2 families; controls: 1."


def test_several_source_networks_rows_of_more_replicates_and_external_weights_are_said():
    sources = {"source": {"dataset": {"name": "digits"}, "recipe": "short", "networks": 3}}
    trials = [{"targets": ["near"], "perturbations": ["identity"], "replicates": 30}]
    lines = list(scope_of(suite({}, sources=sources, trials=trials), {}, ["net+timm"]))
    assert "3 networks, of which replicate k starts from number k modulo 3" in lines[0]
    assert lines[0].endswith("which no interval covers: net+timm.")
    assert lines[2] == "Replicates: 3 of every trial; 30 of some rows, each with its own seeds."
    assert "another pre-training where arms start from several source networks" in lines[3]
    assert len(lines) == 5


def test_images_are_counted_in_the_records():
    rows = [
        record(0.5, n=100, metric="test_metric"),
        record(0.5, target="far", n=20, metric="test_metric"),
        record(1.0, metric="x", n=7),
    ]
    assert image_counts(table(rows)) == {"near": 100, "far": 20}
