"""The line between a browser and the app, which can be slow, cut and mended."""

import contextlib
import queue
import socket
import socketserver
import threading
import time


class Line(socketserver.ThreadingTCPServer):
    """Listens at an address of its own and carries everything to the app and back."""

    daemon_threads = True

    def __init__(self, url, round_trip=0.0):
        """`round_trip` is in seconds; half of it passes on each way."""
        self.goal, self.held, self.cut_off = int(url.rpartition(":")[2]), set(), False
        self.secret, self.delay, self.closed = False, round_trip / 2, threading.Event()
        self.dead = set()  # ends to which nothing gets any more
        super().__init__(("127.0.0.1", 0), Call)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def cut(self, secretly=False):
        """Secretly: the server does not notice it, as it does not when a laptop changes its network."""
        self.cut_off, self.secret = True, secretly
        for end in [end for end in self.held if not secretly or end.getsockname() == self.server_address]:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def lose(self):
        """Nothing more arrives on the connections that there are, and neither side is told."""
        self.dead |= self.held

    def mend(self):
        self.cut_off = False

    def close(self):
        self.closed.set()
        self.shutdown()
        self.server_close()


class Call(socketserver.BaseRequestHandler):
    def handle(self):
        if self.server.cut_off:
            return
        with socket.create_connection(("127.0.0.1", self.server.goal)) as there:
            ends = {self.request, there}
            self.server.held |= ends
            back = threading.Thread(target=self.carry, args=(there, self.request), daemon=True)
            back.start()
            self.carry(self.request, there)
            back.join()
            self.server.held -= ends

    def carry(self, source, goal):
        on_the_way = queue.SimpleQueue()
        arrival = threading.Thread(target=self.deliver, args=(on_the_way, goal), daemon=True)
        arrival.start()
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                on_the_way.put((time.monotonic() + self.server.delay, data))
        on_the_way.put((0, b""))
        arrival.join()
        if not self.server.secret:
            with contextlib.suppress(OSError):
                goal.shutdown(socket.SHUT_RDWR)

    def deliver(self, on_the_way, goal):
        while data := (sent := on_the_way.get())[1]:
            self.server.closed.wait(max(0.0, sent[0] - time.monotonic()))  # the length of the line, unless it ends
            if goal not in self.server.dead:
                with contextlib.suppress(OSError):
                    goal.sendall(data)
