"""A graph as a card has it, on the CPU: operations are recorded, and Python is not run again.

A replay does the recorded operations on the memory of the capture. So whatever a step takes from
anywhere else (a number, a branch, a count, a draw of the host, a tensor that is made anew) stays as
it was in the capture, and to ask for a value in the capture fails.
"""

from contextlib import contextmanager

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from transferbench.training.graph import RecordedCalls

WAITING = {"aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select", "aten::equal"}
"""Operations for which a card is waited for."""


class OperationRecorder(TorchDispatchMode):
    """Notes each operation with its arguments and results, and what they overwrite."""

    def __init__(self):
        super().__init__()
        self.operations = []
        self._before = {}

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        del types
        kwargs = kwargs or {}
        if operation.name().partition(".")[0] in WAITING:
            raise RuntimeError("operation not permitted when stream is capturing")
        for written in written_by(operation, args, kwargs):
            self._before.setdefault(storage_of(written), (written, written.clone()))
        results = operation(*args, **kwargs)
        self.operations.append((operation, args, kwargs, results))
        return results

    def undo(self):
        """Put back what was overwritten: a capture computes nothing."""
        with torch.no_grad():
            for written, value in self._before.values():
                written.copy_(value)


def written_by(operation, args, kwargs):
    """The tensors among the arguments that an operation overwrites."""
    schema = operation._schema.arguments
    named = {argument.name: value for argument, value in zip(schema, args, strict=False)} | kwargs
    # Batch normalisation does not declare the statistics that it overwrites.
    writes = [argument.name for argument in schema
              if argument.name in {"running_mean", "running_var"}
              or (argument.alias_info is not None and argument.alias_info.is_write)]  # fmt: skip
    leaves = tree_leaves([named.get(name) for name in writes])
    return [leaf for leaf in leaves if isinstance(leaf, torch.Tensor)]


def do_again(operation, args, kwargs, results):
    """Do an operation on the same memory; what it makes anew is copied to where it was."""
    again = operation(*args, **kwargs)
    for tensor, value in zip(tree_leaves(results), tree_leaves(again), strict=True):
        if isinstance(tensor, torch.Tensor) and storage_of(tensor) != storage_of(value):
            tensor.copy_(value)


def storage_of(tensor):
    return tensor.untyped_storage().data_ptr()


class RecordedOperations(RecordedCalls):
    """Only torch's generator is in the graph, as that of a card is."""

    def capture(self, works, generators):
        super().capture(works, generators)
        self.recorded = []
        for work, own in zip(works, generators, strict=True):
            with drawing_from(own, keeps=False), OperationRecorder() as recording:
                work()
            recording.undo()
            self.recorded.append(recording.operations)

    def replay(self):
        for operations, own in zip(self.recorded, self._generators, strict=True):
            with drawing_from(own, keeps=True), torch.no_grad():
                for each in operations:
                    do_again(*each)
        return {}


@contextmanager
def drawing_from(own, *, keeps):
    """Inside the block torch draws from the state of ``own``, which moves on if it ``keeps`` it."""
    outside = torch.get_rng_state()
    torch.set_rng_state(own._states.torch)
    try:
        yield
    finally:
        if keeps:
            own._states = own._states._replace(torch=torch.get_rng_state())
        torch.set_rng_state(outside)
