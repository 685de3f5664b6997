"""The calls to Ray: its nodes, and an actor for each slot. No runtime_env: nodes are alike."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from threading import current_thread, main_thread
from typing import Any

from transferbench.errors import ExecutorError
from transferbench.runner.executors import Assignment, Outcome
from transferbench.runner.executors.local import absolute
from transferbench.runner.ray.actor import SlotActor
from transferbench.runner.ray.executor import Answer, Gone, Ready, Refused, Slot
from transferbench.runner.ray.slots import Lane, Node

__all__ = ["RayCluster"]

CONNECT_SECONDS = 5.0
CONTROL = "control"
"""The thread of an actor that answers while another runs jobs."""


class RayCluster:
    """A connection to Ray: at ``address``, or one that this process had, or one begun for this run.

    ``logs``: a folder that all nodes see. ``cpus``: of a Ray that is begun here.
    """

    def __init__(
        self, address: str | None, logs: Path, time_limit_seconds: float | None, cpus: int
    ) -> None:
        import ray

        self._ray: Any = ray
        self._logs, self._limit_seconds = logs, time_limit_seconds
        self._own_folder: str | None = None
        self._starts: dict[str, Any] = {}
        self._connected = not ray.is_initialized()
        if self._connected:
            self._connect(address or os.environ.get("RAY_ADDRESS"), cpus)

    def _connect(self, address: str | None, cpus: int) -> None:
        quiet = {"log_to_driver": False, "logging_level": "ERROR"}
        handler = signal.getsignal(signal.SIGTERM)
        try:
            if address:
                _refuse_unreachable(address)
                self._ray.init(address=address, **quiet)
            else:
                # Short: names of sockets in it may have 100 characters.
                self._own_folder = tempfile.mkdtemp(prefix=f"ray-{os.getpid()}-", dir="/tmp")
                self._ray.init(address="local", num_cpus=cpus, include_dashboard=False,
                               _temp_dir=self._own_folder, **quiet)  # fmt: skip
        except BaseException as error:
            self.close()
            if isinstance(error, RuntimeError | ValueError | OSError):
                where = f"reach the Ray cluster at {address}" if address else "start Ray here"
                see = "; ray status says on a node whether it runs"
                see = see if address and isinstance(error, OSError) else ""
                raise ExecutorError(f"cannot {where}: {error}{see}") from error
            raise
        finally:
            # Ray's own would end this process without ending the run.
            if current_thread() is main_thread():
                signal.signal(signal.SIGTERM, handler)

    def nodes(self) -> list[Node]:
        """The nodes that are alive, in the order of their ids."""
        return sorted(
            Node(
                node["NodeID"],
                node["NodeManagerHostname"],
                node["Resources"].get("CPU", 0.0),
                node["Resources"].get("GPU", 0.0),
            )
            for node in self._ray.nodes()
            if node["Alive"]
        )

    def begin(self, node: Node, lane: Lane) -> Slot:
        """Have an actor on a node; it waits there until what it takes is free."""
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        if lane.name not in self._starts:
            self._starts[lane.name] = self._ray.put(lane.start)
        remote = self._ray.remote(
            num_cpus=lane.cpus, num_gpus=lane.gpus, max_restarts=0, max_task_retries=0,
            concurrency_groups={CONTROL: 1},
            scheduling_strategy=NodeAffinitySchedulingStrategy(node.id, soft=False),
        )  # fmt: skip
        actor = remote(SlotActor).remote(
            self._starts[lane.name], self._limit_seconds, absolute(sys.path), str(self._logs)
        )
        return Slot(node, lane.name, actor, actor.ready.remote())

    def give(self, slot: Slot, jobs: Assignment) -> None:
        """Give jobs to an idle slot."""
        run = slot.actor.run.options(num_returns="streaming")
        slot.pending = run.remote(jobs.jobs)

    def answers(self, slots: Sequence[Slot], timeout: float) -> list[tuple[Slot, Answer]]:
        """The next answer of each slot that has one."""
        by_answer = {slot.pending: slot for slot in slots}
        if not by_answer:
            time.sleep(timeout)  # until a node joins
            return []
        ready, _ = self._ray.wait(list(by_answer), timeout=timeout)
        if ready:
            ready, _ = self._ray.wait(list(by_answer), num_returns=len(by_answer), timeout=0)
        return [(by_answer[answer], self._answer(by_answer[answer])) for answer in ready]

    def end(self, slots: Sequence[Slot], timeout: float) -> None:
        """End the jobs of slots as an interrupt does, and wait for that."""
        if not self._ray.is_initialized():  # somebody has left the cluster already
            return
        for slot in slots:
            slot.actor.end.options(concurrency_group=CONTROL).remote()
        ends = [slot.pending.completed() for slot in slots]
        self._ray.wait(ends, num_returns=len(ends), timeout=timeout)

    def kill(self, slot: Slot) -> None:
        """End an actor, whatever it does."""
        if self._ray.is_initialized():
            self._ray.kill(slot.actor)

    def close(self) -> None:
        """Leave the cluster, or end it where it was begun for this run."""
        if self._connected:
            self._ray.shutdown()
        if self._own_folder:
            shutil.rmtree(self._own_folder, ignore_errors=True)
        with suppress(OSError):
            for log in self._logs.iterdir():
                if not log.stat().st_size:
                    log.unlink()
            for folder in (self._logs, self._logs.parent):
                folder.rmdir()  # where nothing was printed

    def _answer(self, slot: Slot) -> Answer:
        from ray.exceptions import OutOfMemoryError, RayError, RayTaskError

        try:
            if not slot.log:
                return Ready(self._ray.get(slot.pending))
            answer: list[Outcome | str] = self._ray.get(next(slot.pending))
        except StopIteration:
            return Gone("is gone, with the Ray of its node", "")
        except RayTaskError as error:
            cause = error.cause
            return Refused(cause if isinstance(cause, Exception) else RuntimeError(str(error)))
        except OutOfMemoryError as error:
            return Gone("was ended by Ray: its node ran out of memory; use fewer slots", str(error))
        except RayError as error:
            return Gone(f"is gone ({type(error).__name__})", str(error))
        return answer


def _refuse_unreachable(address: str) -> None:
    """Try the port of a cluster: Ray itself would try for minutes.

    Raises: ``OSError``; ``ValueError`` for what is no address of one.
    """
    if address.startswith("ray://"):
        raise ValueError("run on a node of the cluster instead, and write HOST:PORT or auto")
    host, _, port = address.rpartition(":")
    if address not in {"auto", "local"} and not (host and port.isdecimal()):
        raise ValueError("write HOST:PORT, or auto for the cluster that this machine is part of")
    if host:
        socket.create_connection((host, int(port)), CONNECT_SECONDS).close()
