"""Who trains together is read from one variable, waited for and watched."""

import concurrent.futures
import json
import socket
import threading

import pytest

from keras_vit.training.hosts import cluster
from keras_vit.training.hosts.cluster import Cluster, Watchdog, read_cluster


def free_ports(count):
    """Ports that nobody listens at."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def test_a_watchdog_that_was_stopped_ends_nothing():
    server = socket.create_server(("127.0.0.1", 0))
    address = f"127.0.0.1:{server.getsockname()[1]}"
    said, over = [], threading.Event()

    def end(line, status):
        said.append((line, status))
        over.set()

    def watch():
        watchdog = Watchdog(Cluster(("here:1", address), 0), silence=1.5, end=end)
        watchdog.start()
        return watchdog

    stopped, watching = watch(), watch()
    assert not over.wait(3), "it answers"
    stopped.stop()
    server.close()
    assert over.wait(10)
    stopped._thread.join(5)
    watching._thread.join(5)
    assert len(said) == 1
    assert f"Worker 1 ({address}) stopped answering" in said[0][0]


def test_a_worker_listens_at_both_kinds_of_address():
    if not socket.has_dualstack_ipv6():
        pytest.skip("This machine has no IPv6.")
    port, other = free_ports(2)
    waiting = Cluster((f"127.0.0.1:{port}", f"127.0.0.1:{other}"), 0)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        worker = pool.submit(cluster.wait_for_all, waiting, patience=3)
        missing = {f"127.0.0.1:{port}", f"[::1]:{port}"}
        while missing and not worker.done():
            missing = {it for it in missing if not cluster.answers(it)}
    assert not missing
    assert "never answered" in str(worker.exception())  # for lack of the other


def test_nobody_answers_at_what_is_no_name():
    assert not cluster.answers("a..b:1")


def test_a_chief_comes_before_the_workers():
    workers = {"chief": ["a:1"], "worker": ["b:2", "[::1]:3"]}
    task = {"type": "worker", "index": "1"}
    found = read_cluster(json.dumps({"cluster": workers, "task": task}))
    assert found == Cluster(("a:1", "b:2", "[::1]:3"), 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "must be like"),
        ("[]", "must be like"),
        ('{"cluster": {"worker": ["a:1"]}}', "must be like"),
        (
            '{"cluster": {"ps": ["a:1"]}, "task": {"type": "ps", "index": 0}}',
            "chief and",
        ),
        (
            '{"cluster": {"worker": ["a"]}, "task": {"type": "worker", "index": 0}}',
            "PORT",
        ),
        (
            '{"cluster": {"worker": ["a:65536"]}, "task": {"type": "worker", "index": 0}}',
            "PORT",
        ),
        (
            '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 1}}',
            "names 1 of type 'worker'",
        ),
        (
            '{"cluster": {"worker": ["a:1"]}, "task": {"type": [], "index": 0}}',
            "type '\\[\\]'",
        ),
        (
            '{"cluster": {"worker": ["a:1"]}, "task": {"type": "a", "index": Infinity}}',
            "must be like",
        ),
        (
            '{"cluster": {"worker": {"a:1": 2}}, "task": {"type": "worker", "index": 0}}',
            "must be lists",
        ),
    ],
)
def test_a_wrong_tf_config_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        read_cluster(text)
