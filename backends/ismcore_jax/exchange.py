"""Numbers and words between the processes of a fit, by way of number 0, and how each learns which of them is gone."""

from __future__ import annotations

import hmac
import socket
import struct
import threading
import time
from collections import deque
from contextlib import suppress

__all__ = ["Exchange", "Lost"]

HEADER = struct.Struct("!cI")
"""What a message is, and how many bytes follow."""
VALUES, LEFT, CLOSED = b"v", b"l", b"c"
LATER = 5.0
"""Seconds that number 0 has, after the time in which it hears nothing, to say of whom, before it is itself taken for silent."""


class Lost(Exception):
    """A process is gone, or has left; which, and why, in words."""


class Exchange:
    """Connections of number 0 to all other processes, or of another one to number 0.

    Each is held as long as its process lives: the system closes it where one is killed, so that number 0 knows which, and tells
    the others; these know by themselves where number 0 is gone.

    Args:
        rank: Number of this process.
        connections: Of number 0, to each other process by its number; of another one, {0: to number 0}.
        timeout: Seconds after which a process that does not answer, though its connection stands, counts as lost.
    """

    def __init__(self, rank: int, connections: dict[int, socket.socket], timeout: float) -> None:
        self._rank, self._connections, self._timeout = rank, connections, timeout
        self._came: dict[int, deque[bytes]] = {number: deque() for number in connections}
        self._lost, self._changed = "", threading.Condition()
        for number in connections:
            threading.Thread(target=self._listen, args=(number,), name="ismcore-exchange", daemon=True).start()

    @classmethod
    def of_first(cls, listener: socket.socket, world: int, token: bytes, timeout: float) -> Exchange:
        """That of number 0, once all others have come; who does not send the token, 32 bytes, is turned away.

        Raises:
            OSError: They have not come in time.
        """
        connections: dict[int, socket.socket] = {}
        end = time.monotonic() + timeout
        while len(connections) < world - 1:
            listener.settimeout(max(0.01, end - time.monotonic()))
            connection, _ = listener.accept()
            connection.settimeout(5.0)
            try:
                sent, number = _read(connection, len(token)), int.from_bytes(_read(connection, 4), "big")
            except OSError:
                sent, number = b"", 0
            if hmac.compare_digest(sent, token) and 0 < number < world and number not in connections:
                connections[number] = _steady(connection)
            else:
                connection.close()
        return cls(0, connections, timeout)

    @classmethod
    def of_other(cls, rank: int, address: tuple[str, int], token: bytes, timeout: float) -> Exchange:
        """That of another process.

        Raises:
            OSError: Number 0 is not to be reached.
        """
        connection = socket.create_connection(address, timeout)
        connection.sendall(token + rank.to_bytes(4, "big"))
        return cls(rank, {0: _steady(connection)}, timeout)

    def gather(self, values: bytes) -> list[bytes]:
        """What each process gives, all of one length, in the order of their numbers.

        Raises:
            Lost: One of them is gone; once that is known, nothing is sent that another could take for part of a later one.
        """
        if lost := self.lost():
            raise Lost(lost)
        if self._rank:
            self._send(0, VALUES, values)
            table = self._next(0)
            return [table[start : start + len(values)] for start in range(0, len(table), len(values))]
        parts = [values, *(self._next(number) for number in sorted(self._connections))]
        for number in self._connections:
            self._send(number, VALUES, b"".join(parts))
        return parts

    def lost(self, wait: float = 0.0) -> str:
        """Who is gone, in words; "" where nobody is known to be, after waiting for so many seconds."""
        with self._changed:
            self._changed.wait_for(lambda: self._lost, wait)
            return self._lost

    def leave(self, why: str) -> None:
        """Tell the others that this process goes, and why."""
        self._lose(why, self._rank)
        if self._rank:
            self._send(0, LEFT, why.encode())

    def close(self) -> None:
        """Give the connections back."""
        with self._changed:
            self._lost = self._lost or "the connections are given back"
        for number, connection in self._connections.items():
            self._send(number, CLOSED, b"")
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    def _next(self, number: int) -> bytes:
        came = self._came[number]
        with self._changed:
            in_time = self._changed.wait_for(lambda: came or self._lost, self._timeout + LATER * bool(self._rank))
        if not in_time:
            self._lose(f"process {number} did not answer within {self._timeout:g} s", number)
        with self._changed:
            if not came:
                raise Lost(self._lost)
            return came.popleft()

    def _send(self, number: int, kind: bytes, content: bytes) -> None:
        with suppress(OSError):  # who is gone is found by listening
            self._connections[number].sendall(HEADER.pack(kind, len(content)) + content)

    def _listen(self, number: int) -> None:
        connection = self._connections[number]
        try:
            while True:
                kind, size = HEADER.unpack(_read(connection, HEADER.size))
                content = _read(connection, size)
                if kind == VALUES:
                    with self._changed:
                        self._came[number].append(content)
                        self._changed.notify_all()
                elif kind == LEFT:
                    self._lose(content.decode(errors="replace"), number)
                else:
                    with self._changed:
                        self._lost = self._lost or f"process {number} shares no more fits"
                        self._changed.notify_all()
                    return
        except OSError:
            self._lose(f"process {number} is gone", number)

    def _lose(self, why: str, number: int) -> None:
        """Note who is gone, if it is the first; number 0 tells all but the one that it is about."""
        with self._changed:
            if self._lost:
                return
            self._lost = why
            self._changed.notify_all()
        if not self._rank:
            for other in self._connections.keys() - {number}:
                self._send(other, LEFT, why.encode())


def _read(connection: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        part = connection.recv(size - len(found))
        if not part:
            raise ConnectionResetError("closed")
        found += part
    return found


def _steady(connection: socket.socket) -> socket.socket:
    """The connection without a limit of time, and without a wait for more before a message is sent."""
    connection.settimeout(None)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection
