# SPDX-License-Identifier: Apache-2.0
"""A TCP link with faults between agent and server: both ends see what a bad network, firewall or router would do.

The link forwards bytes of connections to a target. Everything is set while it runs, from any thread:

    rate        bytes per second each way, 0: as fast as it goes
    delay       seconds that each piece is held, each way
    stall()     nothing moves any more and nobody is told (half-open: a dead router); flow() ends it
    cut()       every connection is reset now
    cut_after   the next connection is reset after so many bytes to the server, None: never
    stall_after the same, but it falls silent
    flip_after  one bit of the byte at that place to the server is turned over, once
    refuse      new connections are reset at once
"""

import asyncio
import socket
import struct
import threading

PIECE = 16384


class Link:
    def __init__(self, listen_port, target_port):
        self.listen_port, self.target_port = listen_port, target_port
        self.rate = 0
        self.delay = 0.0
        self.cut_after = self.stall_after = self.flip_after = None
        self.refuse = False
        self.connections = 0        # accepted since the start
        self.forwarded = 0          # bytes to the server
        self.flips = 0
        self._open = set()
        self._loop = asyncio.new_event_loop()
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self):
        self._thread.start()
        self._ready.wait(30)
        return self

    def __exit__(self, *_):
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(30)

    def stall(self):
        self._loop.call_soon_threadsafe(self._flowing.clear)

    def flow(self):
        self._loop.call_soon_threadsafe(self._flowing.set)

    def cut(self):
        self._loop.call_soon_threadsafe(self._reset_all)

    # ---- the link's own thread

    def _run(self):
        asyncio.set_event_loop(self._loop)

        async def serve():
            self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.listen_port, limit=PIECE * 4)
            self._ready.set()

        self._loop.run_until_complete(serve())
        self._loop.run_forever()
        self._server.close()
        self._reset_all()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.run_until_complete(asyncio.sleep(0))

    @staticmethod
    def _reset(writer):
        """Closes with RST: no orderly end, what was on its way is gone."""
        sock = writer.get_extra_info("socket")
        if sock is not None:
            try:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            except OSError:
                pass
        writer.transport.abort()

    def _reset_all(self):
        for writer in list(self._open):
            self._reset(writer)

    async def _accept(self, reader, writer):
        self.connections += 1
        if self.refuse:
            self._reset(writer)
            return
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target_port, limit=PIECE * 4)
        except OSError:
            self._reset(writer)
            return
        pair = (writer, far_writer)
        self._open.update(pair)
        plan = {"cut": self.cut_after, "stall": self.stall_after, "flip": self.flip_after}
        self.cut_after = self.stall_after = self.flip_after = None
        moves = [asyncio.ensure_future(self._move(reader, far_writer, plan)),
                 asyncio.ensure_future(self._move(far_reader, writer, None))]
        await asyncio.wait(moves, return_when=asyncio.FIRST_COMPLETED)
        for move in moves:
            move.cancel()
        for end in pair:
            self._reset(end)
        self._open.difference_update(pair)

    async def _move(self, reader, writer, plan):
        moved = 0
        try:
            while piece := await reader.read(PIECE):
                await self._flowing.wait()
                if self.delay:
                    await asyncio.sleep(self.delay)
                if self.rate:
                    await asyncio.sleep(len(piece) / self.rate)
                if plan is not None:
                    piece = await self._apply(plan, moved, piece)
                    if piece is None:
                        return
                    self.forwarded += len(piece)
                moved += len(piece)
                writer.write(piece)
                await writer.drain()
        except (OSError, asyncio.CancelledError):
            return

    async def _apply(self, plan, moved, piece):
        """What the plan does to this piece: the piece to forward, or None to reset."""
        def hits(name):
            return plan[name] is not None and moved + len(piece) > plan[name]
        if hits("flip"):
            at = plan["flip"] - moved
            piece = piece[:at] + bytes([piece[at] ^ 1]) + piece[at + 1:]
            plan["flip"] = None
            self.flips += 1
        if hits("cut"):
            return None
        if hits("stall"):
            await asyncio.Event().wait()  # for ever: only a reset of the connection ends it
        return piece
