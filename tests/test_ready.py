"""Which jobs may begin: each after what it requires, in order, looked at once."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from transferbench.plan import Job, Work
from transferbench.runner.ready import Queue, ReadyJobs

QUEUE = Queue("")


def jobs_of(requires):
    return {
        str(i): Job(str(i), "trial", {}, tuple(map(str, needs)), str(i), Work(0.0, 0.0))
        for i, needs in enumerate(requires)
    }


graphs = st.integers(1, 12).flatmap(
    lambda n: st.tuples(*(st.lists(st.integers(0, i - 1), max_size=3) if i else st.just([])
                          for i in range(n)))
)  # fmt: skip


@given(graphs, st.randoms(use_true_random=False))
def test_each_job_begins_once_after_all_that_it_requires_the_first_of_those_ready(requires, draw):
    jobs = jobs_of(requires)
    order = list(range(len(jobs)))
    draw.shuffle(order)
    costs = dict(zip(jobs, order, strict=True))
    looked_at = Counter()

    def order(name):
        looked_at[name] += 1
        return costs[name]

    ready = ReadyJobs(jobs, (), order, lambda _: QUEUE)
    for name in jobs:
        ready.add(name)
    done = []
    while ready.waiting:
        may = {name for name in ready.waiting if set(jobs[name].requires) <= set(done)}
        (name,) = ready.take(QUEUE, 1)
        assert name == min(may, key=costs.get)
        done.append(name)
        ready.done(name)
    assert sorted(done) == sorted(jobs)
    assert set(looked_at.values()) == {1}


def test_what_is_computed_again_holds_up_what_requires_it():
    jobs = jobs_of([[], [0], [1]])
    ready = ReadyJobs(jobs, {"0", "1"}, int, lambda _: QUEUE)
    ready.add("2")
    assert len(ready) == 1
    ready.undone("1")
    ready.add("1")
    assert (ready.take(QUEUE, 9), ready.waiting) == (["1"], {"2"})
    ready.done("1")
    assert ready.take(QUEUE, 9) == ["2"]


def test_single_jobs_come_before_those_that_may_run_together():
    jobs = jobs_of([[], [], []])
    shapes = {"0": Queue("", "shape"), "1": Queue("gpu"), "2": Queue("")}
    ready = ReadyJobs(jobs, (), int, shapes.__getitem__)
    for name in jobs:
        ready.add(name)
    assert list(ready.queues()) == [(shapes["1"], 1), (shapes["2"], 1), (shapes["0"], 1)]
    ready.remove("1")
    assert [queue for queue, _ in ready.queues()] == [shapes["2"], shapes["0"]]
