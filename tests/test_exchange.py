"""Processes of JAX learn of each other by connections to number 0: who gives what, and who is gone."""

import socket
import threading
import time

import pytest
from ismcore_jax import exchange
from ismcore_jax.exchange import Exchange, Lost

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


@pytest.mark.parametrize("rank", [0, 1])
def test_what_is_asked_for_after_leaving_is_no_part_of_what_others_ask_for(rank):
    exchanges = connected(2)
    exchanges[rank].leave("process ended by KeyError")
    for values in (b"a longer one", b"x"):
        with pytest.raises(Lost, match="KeyError"):
            exchanges[rank].gather(values)
    assert exchanges[1 - rank].lost(5.0) == "process ended by KeyError"
    time.sleep(0.05)  # whatever was sent is there
    for _ in range(2):
        with pytest.raises(Lost, match="KeyError"):
            exchanges[1 - rank].gather(b"y")
    ended(exchanges)


def test_one_that_does_not_answer_in_time_is_named_by_number_0(monkeypatch):
    monkeypatch.setattr(exchange, "LATER", 1.0)
    exchanges = connected(3, timeout=0.1)
    start = time.monotonic()
    assert gathered(exchanges, [0, 1]) == dict.fromkeys([0, 1], "process 2 did not answer within 0.1 s")
    assert time.monotonic() - start < 1.0
    ended(exchanges)


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
