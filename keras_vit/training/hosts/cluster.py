"""The hosts that train together: who they are, whether all have come, who is gone.

Every worker of a cluster runs the same program; `TF_CONFIG` tells them apart:

    {"cluster": {"worker": ["host0:12345", "host1:12345"]},
     "task": {"type": "worker", "index": 0}}

Standard library only.
"""

import dataclasses
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable

# Seconds. A worker that answered and falls silent for this long is taken for dead.
SILENCE = 10.0
# How long workers are waited for at the start.
PATIENCE = 300.0
# Exit status after another worker stopped answering.
WORKER_LOST = 4


@dataclasses.dataclass(frozen=True)
class Cluster:
    """The hosts that train together.

    Attributes:
        addresses: `host:port` of each worker; the first one writes the files.
        index: Which of them this process is.
    """

    addresses: tuple[str, ...]
    index: int

    @property
    def others(self) -> dict[int, str]:
        """Addresses of all workers but this one, by index."""
        numbered = enumerate(self.addresses)
        return {i: address for i, address in numbered if i != self.index}


def read_cluster(text: str) -> Cluster:
    """Reads `TF_CONFIG`.

    Raises:
        ValueError: If it is no JSON, or names no workers, or not this one.
    """
    try:
        content = json.loads(text)
        workers = content["cluster"]
        if not all(isinstance(group, list) for group in workers.values()):
            raise TypeError("addresses must be lists")
        addresses = (*workers.get("chief", ()), *workers.get("worker", ()))
        kind, index = str(content["task"]["type"]), int(content["task"]["index"])
    except (
        ArithmeticError,
        AttributeError,
        LookupError,
        TypeError,
        ValueError,
    ) as error:
        raise ValueError(
            'TF_CONFIG must be like {"cluster": {"worker": ["HOST:PORT", ...]}, '
            f'"task": {{"type": "worker", "index": 0}}}}. {error!r} in: {text[:200]}'
        ) from error
    if set(workers) - {"chief", "worker"} or kind not in workers:
        raise ValueError(
            "TF_CONFIG may name a chief and workers, of which this is one. Received: "
            f"{', '.join(workers)} and a task of type {kind!r}"
        )
    for address in addresses:
        host, _, port = str(address).rpartition(":")
        if not host or not port.isdecimal() or int(port) > 65535:
            raise ValueError(
                f"TF_CONFIG must name each worker HOST:PORT. Received: {address!r}"
            )
    if not 0 <= index < len(workers[kind]):
        raise ValueError(
            f"TF_CONFIG names {len(workers[kind])} of type {kind!r}. Received: "
            f"index={index}"
        )
    return Cluster(addresses, place(workers, kind, index))


def place(workers: dict[str, list[str]], kind: str, index: int) -> int:
    """Which worker of all it is: a chief comes before them."""
    return index + (len(workers.get("chief", ())) if kind == "worker" else 0)


def wait_for_all(cluster: Cluster, patience: float = PATIENCE) -> None:
    """Waits until every worker answers at its address, as this one does meanwhile.

    TensorFlow would wait too, without end and without a word about whom for.

    Raises:
        ValueError: If some never answered, or this worker can't have its own address.
    """
    own = cluster.addresses[cluster.index].rpartition(":")[2]
    both = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if both else socket.AF_INET
    try:
        server = socket.create_server(
            ("", int(own)), family=family, dualstack_ipv6=both
        )
    except OSError as error:
        raise ValueError(
            f"Worker {cluster.index} can't listen at port {own}: {error.strerror}."
        ) from error
    with server:
        absent = cluster.others
        deadline = time.monotonic() + patience
        while absent:
            absent = {i: it for i, it in absent.items() if not answers(it)}
            if absent and time.monotonic() > deadline:
                raise ValueError(
                    f"{_name_workers(absent)} never answered in {patience:g} seconds."
                )
            time.sleep(0.2 if absent else 0)


class Watchdog:
    """Ends this process with a line that names the worker which is gone.

    Without it, the others would wait for a dead worker, for minutes or for ever. It
    opens and closes a connection to each of them once a second.

    Args:
        cluster: Who is to be watched.
        silence: Seconds without an answer after which a worker is taken for dead;
            `SILENCE` if `None`.
        end: What to do with the line and the exit status.
    """

    def __init__(
        self,
        cluster: Cluster,
        silence: float | None = None,
        end: Callable[[str, int], None] | None = None,
    ):
        self.silence = SILENCE if silence is None else silence
        self._others = cluster.others
        self._heard: dict[int, float] = {}
        self._stopped = threading.Event()
        try:
            # A copy: it may be redirected later.
            self._terminal = os.dup(sys.stderr.fileno())
        except (AttributeError, OSError):
            self._terminal = 2
        self._end = end or self._exit
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def start(self) -> None:
        """Begins to watch."""
        self._thread.start()

    def stop(self) -> None:
        """Ends watching; who goes now has finished."""
        self._stopped.set()

    def wait(self) -> None:
        """Gives it the time to find out who is gone, after something failed."""
        self._thread.join(self.silence + 5)

    def _watch(self) -> None:
        self._heard = dict.fromkeys(self._others, time.monotonic())
        while not self._stopped.wait(1.0):
            for index, address in self._others.items():
                if answers(address):
                    self._heard[index] = time.monotonic()
            now = time.monotonic()
            gone = {
                index: self._others[index]
                for index, heard in self._heard.items()
                if now - heard > self.silence
            }
            if gone and not self._stopped.is_set():
                line = (
                    f"{_name_workers(gone)} stopped answering {self.silence:g} seconds ago. "
                    "Start all workers again to go on from the newest checkpoint."
                )
                return self._end(line, WORKER_LOST)
        return None

    def _exit(self, line: str, status: int) -> None:
        # Nothing softer ends a process that waits in a collective operation.
        os.write(self._terminal, f"keras-vit: {line}\n".encode())
        os._exit(status)


def _name_workers(workers: dict[int, str]) -> str:
    named = ", ".join(f"{index} ({address})" for index, address in workers.items())
    return f"Worker {named}" if len(workers) == 1 else f"Workers {named}"


def answers(address: str) -> bool:
    """Whether somebody listens at `HOST:PORT`."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=1.0).close()
    except (OSError, UnicodeError):  # the latter where it can't be a name
        return False
    return True
