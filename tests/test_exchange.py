"""Processes of JAX learn of each other by connections to number 0: who gives what, and who is gone."""

import socket
import threading
import time
from types import SimpleNamespace

import jax
import pytest
from ismcore_jax.sharing import exchange, mesh
from ismcore_jax.sharing.exchange import Exchange, Lost

import ismcore

TOKEN = b"a" * 64


def connected(world, timeout=5.0):
    """The exchanges of so many processes, all in this one; someone without the token came before them."""
    listener = socket.create_server(("127.0.0.1", 0))
    address = listener.getsockname()
    stranger = socket.create_connection(address)
    stranger.sendall(b"b" * len(TOKEN) + (1).to_bytes(4, "big"))
    found = {}

    def join(rank):
        found[rank] = Exchange.of_other(rank, address, TOKEN, timeout)

    joining = [threading.Thread(target=join, args=(rank,)) for rank in range(1, world)]
    for thread in joining:
        thread.start()
    found[0] = Exchange.of_first(listener, world, TOKEN, timeout)
    for thread in joining:
        thread.join()
    assert stranger.recv(1) == b""
    stranger.close()
    listener.close()
    return [found[rank] for rank in range(world)]


def gathered(exchanges, ranks):
    """What each of these is given, or why it is not."""
    found = {}

    def gather(rank):
        try:
            found[rank] = exchanges[rank].gather(b"%d." % rank)
        except Lost as error:
            found[rank] = str(error)

    threads = [threading.Thread(target=gather, args=(rank,)) for rank in ranks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def ended(exchanges):
    for each in exchanges:
        each.close()


def test_each_is_given_what_all_give_in_order():
    exchanges = connected(3)
    for _ in range(3):
        assert gathered(exchanges, range(3)) == {rank: [b"0.", b"1.", b"2."] for rank in range(3)}
    assert [each.lost() for each in exchanges] == [""] * 3
    ended(exchanges)


@pytest.mark.parametrize("victim", [0, 2])
def test_one_that_is_gone_is_named_in_all_others(victim):
    exchanges = connected(3)
    exchanges[victim]._lost = "a killed process says nothing"
    for connection in exchanges[victim]._connections.values():
        connection.shutdown(socket.SHUT_RDWR)  # as the system does where it is killed
    others = [rank for rank in range(3) if rank != victim]
    assert gathered(exchanges, others) == dict.fromkeys(others, f"process {victim} is gone")
    assert [exchanges[rank].lost(1.0) for rank in others] == [f"process {victim} is gone"] * 2
    ended(exchanges)


@pytest.mark.parametrize("rank", [0, 1])
def test_one_that_leaves_says_why(rank):
    exchanges = connected(3)
    exchanges[rank].leave(f"process {rank} ended by KeyError")
    assert set(gathered(exchanges, range(3)).values()) == {f"process {rank} ended by KeyError"}
    ended(exchanges)


def test_what_one_that_has_left_would_give_is_not_taken():
    exchanges = connected(2)
    exchanges[1].leave("process 1 ended by KeyError")
    for rank in (1, 0):
        assert gathered(exchanges, [rank]) == {rank: "process 1 ended by KeyError"}
        time.sleep(0.05)
    ended(exchanges)


def test_one_that_does_not_answer_in_time_is_named_by_number_0(monkeypatch):
    monkeypatch.setattr(exchange, "LATER", 1.0)
    exchanges = connected(3, timeout=0.1)
    start = time.monotonic()
    assert gathered(exchanges, [0, 1]) == dict.fromkeys([0, 1], "process 2 did not answer within 0.1 s")
    assert time.monotonic() - start < 1.0
    ended(exchanges)


def test_of_several_that_are_slow_number_0_waits_for_all_at_once(monkeypatch):
    monkeypatch.setattr(exchange, "LATER", 0.2)
    exchanges = connected(4, timeout=0.6)
    found = {}

    def slowly(rank):
        time.sleep(0.5)
        found.update(gathered(exchanges, [rank]))

    slow = threading.Thread(target=slowly, args=(1,))
    slow.start()
    found.update(gathered(exchanges, [0, 2]))
    slow.join()
    assert found == dict.fromkeys(range(3), "process 3 did not answer within 0.6 s")
    ended(exchanges)


@pytest.mark.parametrize("rank", [0, 2])
def test_one_that_gives_something_of_another_length_is_named_in_all(rank):
    exchanges = connected(3)
    plain = Exchange.gather
    exchanges[rank].gather = lambda values: plain(exchanges[rank], values * 2)
    odd = rank or 1
    assert gathered(exchanges, range(3)) == dict.fromkeys(range(3), f"process {odd} makes other calls than process 0")
    ended(exchanges)


def test_those_that_came_are_sent_away_where_another_did_not():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        came = Exchange.of_other(1, listener.getsockname(), TOKEN, 5.0)
        with pytest.raises(OSError, match="timed out"):
            Exchange.of_first(listener, 3, TOKEN, 0.1)
    assert came.lost(1.0) == "process 0 is gone"
    came.close()


def test_who_is_slow_to_show_the_token_is_turned_away(monkeypatch):
    monkeypatch.setattr(exchange, "GREETING", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        stranger = socket.create_connection(listener.getsockname())

        def drip():
            try:
                for _ in range(30):
                    stranger.sendall(TOKEN[:1])
                    time.sleep(0.05)
            except OSError:
                pass

        dripping = threading.Thread(target=drip)
        dripping.start()
        start = time.monotonic()
        joining = threading.Thread(target=lambda: ended([Exchange.of_other(1, listener.getsockname(), TOKEN, 5.0)]))
        joining.start()
        Exchange.of_first(listener, 2, TOKEN, 5.0).close()
        assert time.monotonic() - start < 3.0
        joining.join()
        dripping.join()
        stranger.close()


def test_who_does_not_come_is_not_waited_for():
    with socket.create_server(("127.0.0.1", 0)) as listener, pytest.raises(OSError, match="timed out"):
        Exchange.of_first(listener, 2, TOKEN, 0.1)


def test_what_is_said_to_number_0_before_it_listens_is_not_lost():
    exchanges = connected(2)
    first = threading.Thread(target=exchanges[1].gather, args=(b"x",))
    first.start()
    time.sleep(0.05)
    assert exchanges[0].gather(b"y") == [b"y", b"x"]
    first.join()
    exchanges[1].close()
    with pytest.raises(Lost, match="process 1 shares no more fits"):
        exchanges[0].gather(b"y")
    exchanges[0].close()


class Refused(OSError):
    """No socket."""


@pytest.fixture
def asked(monkeypatch):
    """What sockets are made for, of a process that is number 0 of two; none is given, and JAX is shut down once."""
    found = []

    def refused(address, *, family):
        found.append((address[0], family))
        raise Refused

    monkeypatch.setattr(socket, "create_server", refused)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(mesh, "_begin", lambda *given: None)
    monkeypatch.setattr(jax.distributed, "shutdown", lambda: found.append("shut down"))
    return found


@pytest.mark.parametrize(
    ("address", "host", "family"),
    [
        ("127.0.0.1:1234", "127.0.0.1", socket.AF_INET),
        ("localhost:1234", "localhost", socket.AF_INET),
        ("[::1]:1234", "::1", socket.AF_INET6),
        ("[2001:db8::7]:1234", "", socket.AF_INET6),
        ("192.0.2.1:1234", "", socket.AF_INET),  # that of a service, which no host holds
        ("node7:1234", "", socket.AF_INET),
        (None, "", socket.AF_INET),
    ],
)
@pytest.mark.parametrize("by", ["argument", "environment"])
def test_number_0_listens_on_loopback_where_it_is_called_there(address, host, family, by, asked, monkeypatch):
    monkeypatch.delenv("JAX_COORDINATOR_ADDRESS", raising=False)
    if by == "environment" and address:
        monkeypatch.setenv("JAX_COORDINATOR_ADDRESS", address)
    with pytest.raises(ismcore.WorkerLost), mesh.processes(address if by == "argument" else None):
        pass
    assert asked == [(host, family), "shut down"]


@pytest.mark.parametrize("rank", [0, 1])
def test_that_number_0_cannot_listen_is_told_in_all(rank, asked, monkeypatch):
    monkeypatch.setattr(jax, "process_index", lambda: rank)
    with pytest.raises(ismcore.WorkerLost, match="process 0 cannot listen"), mesh.processes("127.0.0.1:1", 2, rank):
        pass


def test_an_error_inside_is_told_and_ends_the_connections(monkeypatch):
    first, other = connected(2)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(jax.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(mesh, "_exchange", lambda *given: first)
    with pytest.raises(KeyError), mesh.processes():
        raise KeyError
    assert other.lost(1.0) == "process 0 ended by KeyError"
    assert first._connections[1].fileno() == -1
    other.close()


def test_other_numbers_of_devices_are_refused_in_the_one_that_has_their_mean_too(monkeypatch):
    found = [SimpleNamespace(process_index=number, id=id) for number in range(3) for id in range(number + 1)]
    monkeypatch.setattr(jax, "devices", lambda: found)
    monkeypatch.setattr(jax, "local_devices", lambda: found[1:3])
    monkeypatch.setattr(jax, "process_count", lambda: 3)
    with pytest.raises(ismcore.OptionError, match="there are 6 in all"):
        mesh._mesh()
