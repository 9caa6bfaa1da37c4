"""Fits shared by the devices of JAX, of one process or of several: one program over all, with one flat sum a step."""

from __future__ import annotations

import os
import secrets
import socket
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from ipaddress import ip_address
from threading import Event
from typing import Any, TypeVar, cast

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ismcore.backend.processes import IN_WORDS, Processes, shared_by
from ismcore.errors import OptionError, WorkerLost
from ismcore.ops import Array, Params
from ismcore.problem import Problem, Steps
from ismcore_jax.sharing.exchange import Exchange, Lost

__all__ = ["OWN", "SAME", "JaxProcesses", "devices", "processes", "total"]

AXIS = "rows"
"""Of the mesh of all devices, by which the rows of a step are dealt."""
OWN, SAME = PartitionSpec(AXIS), PartitionSpec()  # type: ignore[no-untyped-call]
"""Arrays of which each device has one, counted by the first axis; and those that are the same on all."""
ROLL_CALL = 3.0
"""Seconds that it may take until it is known who is gone, once a sum has failed."""
WORDS = 512
"""Bytes by which number 0 says where it listens."""
ADDRESS = "JAX_COORDINATOR_ADDRESS"
"""Where JAX finds the address that it is not given."""
PREEMPTION = "jax_enable_preemption_service"
_begun = Event()
"""Whether this module began the processes of JAX, which is done once in a program."""

Value = TypeVar("Value")


class JaxProcesses(Processes):
    """See `ismcore.backend.processes.Processes`.

    Attributes:
        mesh: All devices, those of a process one after another, (parts,).
    """

    backend = "jax"

    def __init__(self, mesh: Mesh, exchange: Exchange | None = None) -> None:
        self.mesh, self._exchange = mesh, exchange
        self.rank, self.world = (jax.process_index(), jax.process_count()) if exchange else (0, 1)
        self.parts, self._here = int(mesh.size), len(mesh.local_devices)

    @property
    def platform(self) -> str:
        """That of the devices."""
        return str(self.mesh.devices.flat[0].platform)

    def gather(self, values: Sequence[float]) -> np.ndarray:
        """See `Processes.gather`."""
        own = np.asarray(values, dtype=np.float64)
        if self._exchange is None:
            return own[None]
        try:
            return np.stack([np.frombuffer(part) for part in self._exchange.gather(own.tobytes())])
        except Lost as error:
            raise WorkerLost(IN_WORDS.format(what=error, world=self.world)) from None

    def together(self, call: Callable[[], Value]) -> Value:
        """What a call gives in which all processes sum; none begins it before all are there, as a sum cannot be left.

        Raises:
            WorkerLost: One of them is gone; the message says which.
        """
        self.gather([0.0])
        try:
            return call()
        except Exception as error:  # whatever gloo, NCCL or JAX raise where a connection is gone
            lost = self._exchange.lost(ROLL_CALL) if self._exchange else ""
            if lost:
                raise WorkerLost(IN_WORDS.format(what=lost, world=self.world)) from error
            raise

    def leave(self, error: BaseException) -> None:
        """See `Processes.leave`."""
        if self._exchange is not None and not self._exchange.lost():
            self._exchange.leave(f"process {self.rank} ended by {type(error).__name__}")

    def close(self) -> None:
        """Give the connections back."""
        if self._exchange is not None:
            self._exchange.close()

    def rows(self, n: int, *, is_dealt: bool) -> tuple[np.ndarray, np.ndarray]:
        """Rows of a step that each device of this process has, of the n, and which of them are there: both (devices, m).

        Device r of K has rows r, r + K, ...; where it has one less than others, another stands there that has no weight. Where
        the n rows are dealt between processes already, they are dealt between the devices of this one.
        """
        first, every = (0, self._here) if is_dealt else (self.rank * self._here, self.parts)
        table = first + np.arange(self._here)[:, None] + every * np.arange(-(-n // every))
        return np.minimum(table, n - 1), table < n

    def placed(self, own: Any, spec: PartitionSpec = OWN) -> Any:
        """Arrays of the devices of this process, a tree with leading axis (devices,), as ones over all devices.

        With `SAME` they have no such axis, and are the same on all.
        """
        return _placed(self.mesh, own, spec)

    def samples(self, problem: Problem, dtype: Any) -> tuple[Any, Any]:
        """Rows and inputs of a problem by device: all of them where steps choose their rows, else those of each device."""

        def copied(array: np.ndarray) -> np.ndarray:
            return np.array(array, dtype=dtype, order="C")

        if problem.batch_size is not None:
            whole = {name: copied(cast(np.ndarray, value)) for name, value in problem.inputs().items()}
            both = copied(problem.x), whole
            return cast("tuple[Any, Any]", jax.tree.map(lambda a: np.broadcast_to(a, (self._here, *a.shape)), both))
        rows, there = self.rows(problem.n, is_dealt=False)
        inputs = [cast(Params, problem.inputs_of(own)) for own in rows]
        stacked = {name: np.stack([given[name] for given in inputs]) for name in inputs[0]}
        stacked["row_weight"] = stacked["row_weight"] * there
        return copied(problem.x[rows]), {name: copied(value) for name, value in stacked.items()}

    def steps(self, steps: Steps, problem: Problem) -> list[Steps]:
        """The steps of each device of this process."""
        n = problem.n if steps.rows is None else steps.rows.shape[1]
        rows, there = self.rows(n, is_dealt=problem.is_dealt)
        found = [steps.for_rows(own, problem.row_axes) for own in rows]
        if steps.rows is None:
            return found
        return [
            replace(part, row_weight=cast(np.ndarray, part.row_weight) * mask) for part, mask in zip(found, there, strict=True)
        ]


def total(own: Array) -> Array:
    """The sum of an array over all devices, within a program over their mesh; the same bits on each."""
    return jax.lax.psum(own, AXIS)  # type: ignore[no-untyped-call]


@contextmanager
def devices() -> Iterator[None]:
    """Share every fit inside by all devices of this process, as `processes` does of several; with one device nothing changes.

    Raises:
        OptionError: JAX runs in several processes.
    """
    if jax.process_count() > 1:
        raise OptionError("JAX runs in several processes, and devices() is for one: use processes()")
    with shared_by(_of_one(_mesh())):
        yield


@contextmanager
def processes(
    coordinator_address: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    *,
    timeout: float = 600.0,
) -> Iterator[None]:
    """Share every fit inside by all devices of all processes of JAX, each with its part of the rows of each step.

    Every process runs the same program on the same samples, or the same source. Of the rows of a step device r of K computes
    rows r, r + K, ...; with weights w_i of sum 1 over the rows of all,

        loss = sum_k sum_{i in k} w_i term_i,    gradient = sum_k sum_{i in k} w_i grad term_i,

    by one all-reduce of P + 1 numbers a step, within one compiled program over all devices, so that all make the same update,
    and the fit is that of one device up to the order of sums. All have the result; that of process 0 alone writes checkpoints
    and shows progress. With one process it is `devices`.

    Where `jax.distributed.initialize` was called, its processes are used. Else it is called with these arguments, before
    anything else makes JAX begin, and on CPUs its service, which would end all processes without a word of ours where process 0
    dies, is shut down as soon as they are connected.

    Args:
        coordinator_address: Of process 0, "host:port"; JAX_COORDINATOR_ADDRESS of the environment if None. The port is JAX's;
            another one is found by the processes themselves, on the same host. Without an address, as JAX does not tell that of
            its own, process 0 listens on all networks of its host: give it, where JAX was begun on loopback before.
        num_processes: How many there are.
        process_id: Number of this one, from 0.
        timeout: Seconds after which a process that does not answer, though its connections stand, counts as lost.

    Raises:
        OptionError: JAX cannot be begun so, or processes have different numbers of devices.
        WorkerLost: In a fit: a process died, or left with an error; the message says which. All that are left raise it, and
            `ismcore.resume` goes on from the checkpoint, with any number of processes.
    """
    address = coordinator_address or os.environ.get(ADDRESS)
    own = not _begun.is_set() and not jax.distributed.is_initialized()
    if own:
        _begin(address, num_processes, process_id)
    if jax.process_count() == 1:
        with shared_by(_of_one(_mesh())):
            yield
        return
    try:
        mesh = _mesh()
        group = JaxProcesses(mesh, _exchange(mesh, address, timeout))
    finally:
        if own and jax.devices()[0].platform == "cpu":
            jax.distributed.shutdown()  # type: ignore[no-untyped-call]
    try:
        with shared_by(group):
            yield
        with suppress(WorkerLost):
            group.gather([0.0])  # none goes before all are there
    except BaseException as error:
        group.leave(error)
        raise
    finally:
        group.close()


def _of_one(mesh: Mesh) -> JaxProcesses | None:
    """The devices of one process; None where it has one, and nothing to share."""
    return JaxProcesses(mesh) if mesh.size > 1 else None


def _begin(address: str | None, count: int | None, number: int | None) -> None:
    watched = jax.config.values[PREEMPTION]
    # it takes SIGTERM from the program for good, and ends nothing by it
    jax.config.update(PREEMPTION, False)  # type: ignore[no-untyped-call]
    try:
        jax.distributed.initialize(address, count, number, coordinator_bind_address=_loopback(address))
    except (RuntimeError, ValueError, TypeError) as error:
        raise OptionError(
            f"jax.distributed.initialize cannot begin: {error} Pass coordinator_address=, num_processes= and process_id=, "
            "before JAX is used for anything else"
        ) from error
    finally:
        jax.config.update(PREEMPTION, watched)  # type: ignore[no-untyped-call]
    _begun.set()


def _loopback(address: str | None) -> str | None:
    """Where JAX's service listens: on loopback alone, where it is called there; JAX's own choice, else."""
    return address if address is not None and _is_loopback(_host(address)) else None


def _host(address: str) -> str:
    """Of "host:port", or of "[host]:port" with one of IPv6."""
    return address.rpartition(":")[0].strip("[]")


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:  # another name
        return False


def _mesh() -> Mesh:
    found = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    if len(set(Counter(device.process_index for device in found).values())) > 1:
        raise OptionError(f"each process must have the same number of devices; there are {len(found)} in all")
    return Mesh(np.array(found), (AXIS,))


def _placed(mesh: Mesh, own: Any, spec: PartitionSpec = OWN) -> Any:
    sharding, placed = NamedSharding(mesh, spec), cast("Callable[..., Any]", jax.make_array_from_process_local_data)
    return jax.tree.map(lambda array: placed(sharding, array), own)


def _exchange(mesh: Mesh, address: str | None, timeout: float) -> Exchange:
    """Connect the processes; the address, and a token that proves who comes, are told by a sum, which connects the devices.

    Raises:
        WorkerLost: They cannot be connected, in all where number 0 cannot listen.
    """
    rank, world = jax.process_index(), jax.process_count()
    host = socket.gethostname() if address is None else _host(address)
    with ExitStack() as held:
        listener, said, failure = None, b"", None
        if rank == 0:
            try:
                listener = held.enter_context(_listener(host))
                said = f"{host} {listener.getsockname()[1]} {secrets.token_hex(32)}".encode()
            except OSError as error:  # told to the others by an empty word
                failure = error
        told = _of_number_0(mesh, said).split()
        if not told:
            raise WorkerLost("the processes could not connect: process 0 cannot listen for the others") from failure
        place, port, token = told[0], int(told[1]), told[2].encode()
        try:
            if listener is None:
                return Exchange.of_other(rank, (place, port), token, timeout)
            return Exchange.of_first(listener, world, token, timeout)
        except OSError as error:
            raise WorkerLost(f"the processes could not connect at {place}: {error}") from error


def _listener(host: str) -> socket.socket:
    """A socket that hears the others: on loopback where they come by it, else wherever this machine is reached.

    Its address may be one that it does not hold itself, as of a service; and by its name it may know itself as another one.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host if _is_loopback(host) else "", 0), family=family)


def _of_number_0(mesh: Mesh, said: bytes) -> str:
    """What number 0 says; the others say nothing."""
    own = np.zeros((len(mesh.local_devices), WORDS), dtype=np.int32)
    own[0, : len(said)] = list(said)
    table = np.asarray(jax.jit(jax.shard_map(total, mesh=mesh, in_specs=OWN, out_specs=SAME))(_placed(mesh, own)))
    return bytes(table.ravel().astype(np.uint8)).rstrip(b"\0").decode()
