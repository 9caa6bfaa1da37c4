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
MEET = 30.0
"""Seconds in which all connect, at most: they have just summed together."""
GREETING = 5.0
"""Seconds in which who connects must have shown the token."""
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
        end = time.monotonic() + min(timeout, MEET)
        try:
            while len(connections) < world - 1:
                listener.settimeout(_left(end))
                connection, _ = listener.accept()
                try:
                    until = min(end, time.monotonic() + GREETING)
                    sent = _read(connection, len(token), until)
                    number = int.from_bytes(_read(connection, 4, until), "big")
                except OSError:
                    sent, number = b"", 0
                if hmac.compare_digest(sent, token) and 0 < number < world and number not in connections:
                    connections[number] = _steady(connection)
                else:
                    connection.close()
        except BaseException:
            for connection in connections.values():
                connection.close()
            raise
        return cls(0, connections, timeout)

    @classmethod
    def of_other(cls, rank: int, address: tuple[str, int], token: bytes, timeout: float) -> Exchange:
        """That of another process.

        Raises:
            OSError: Number 0 is not to be reached.
        """
        connection = socket.create_connection(address, min(timeout, MEET))
        try:
            connection.sendall(token + rank.to_bytes(4, "big"))
            return cls(rank, {0: _steady(connection)}, timeout)
        except BaseException:
            connection.close()
            raise

    def gather(self, values: bytes) -> list[bytes]:
        """What each process gives, all of one length, in the order of their numbers.

        Raises:
            Lost: One of them is gone, as after one that was, or gives values of another length.
        """
        if self._lost:  # what one of them gives now the others would take for something else
            raise Lost(self._lost)
        end = time.monotonic() + self._timeout + LATER * bool(self._rank)
        if self._rank:
            self._send(0, VALUES, values)
            table = self._next(0, end)
            return [table[start : start + len(values)] for start in range(0, len(table), len(values))]
        parts = [values, *(self._next(number, end) for number in sorted(self._connections))]
        if other := [number for number, part in enumerate(parts) if len(part) != len(values)]:
            self._lose(f"process {other[0]} makes other calls than process 0", self._rank)
            raise Lost(self._lost)
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

    def _next(self, number: int, end: float) -> bytes:
        came = self._came[number]
        with self._changed:
            in_time = self._changed.wait_for(lambda: came or self._lost, end - time.monotonic())
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


def _left(end: float) -> float:
    """Seconds until then, with which a socket waits."""
    return max(0.01, end - time.monotonic())


def _read(connection: socket.socket, size: int, end: float | None = None) -> bytes:
    """So many bytes; all of them until `end`, if there is one."""
    found = b""
    while len(found) < size:
        if end is not None:
            if time.monotonic() > end:
                raise TimeoutError("timed out")
            connection.settimeout(_left(end))
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
