# SPDX-License-Identifier: Apache-2.0
"""The wire protocol as a liar speaks it: well-formed frames where a test wants them, anything else where it does not.

Only what docs/protocol.md says, written again apart from the daemons' own code, so that the two check each other.
"""

import ctypes
import json
import socket
import ssl
import struct
import uuid

from harness import Failure

HELLO, WELCOME, BATCH_BEGIN, EXTENTS, EPOCH_BEGIN, EPOCH_END, POINT_REQUEST, BATCH_END = range(1, 9)
ACK, EPOCH_RESULT, POINT_RESULT, HASH_ASK, HASH_REPLY, HEARTBEAT, ERROR = range(9, 16)
DATA, ZERO, DISCARD, RESYNC_DATA, RESYNC_ZERO, RESYNC_SAME = range(1, 7)
HEADER_BYTES = 48
MIB = 1 << 20

_xxhash = ctypes.CDLL("libxxhash.so.0")
_xxhash.XXH3_64bits.restype = ctypes.c_uint64
_xxhash.XXH3_64bits.argtypes = [ctypes.c_char_p, ctypes.c_size_t]
_zstd = ctypes.CDLL("libzstd.so.1")
_zstd.ZSTD_compressBound.restype = _zstd.ZSTD_compress.restype = ctypes.c_size_t
_zstd.ZSTD_compressBound.argtypes = [ctypes.c_size_t]
_zstd.ZSTD_compress.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_int]


def xxh3(data):
    return _xxhash.XXH3_64bits(data, len(data))


def zstd(data):
    out = ctypes.create_string_buffer(_zstd.ZSTD_compressBound(len(data)))
    return out.raw[:_zstd.ZSTD_compress(out, len(out), data, len(data), 19)]


def _crc_table():
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        yield byte


_CRC = list(_crc_table())


def crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def header(kind, wire_len, raw_len, checksum, codec=0, batch=0, index=0):
    raw = struct.pack("<4sBBBBIIQIIQI", b"BFR1", 1, kind, codec, 0, wire_len, raw_len, batch, index, 0, checksum, 0)
    return raw + struct.pack("<I", crc32c(raw))


def frame(kind, body=b"", batch=0, index=0):
    return header(kind, len(body), len(body), xxh3(body), 0, batch, index) + body


def text_frame(kind, value):
    return frame(kind, json.dumps(value).encode())


def set_digest(runs):
    """Of (slot, sector, count), sorted, disjoint and not touching."""
    return xxh3(b"".join(struct.pack("<HQQ", *run) for run in runs))


def extents(entries, payload=b""):
    """Body of EXTENTS; an entry is (slot, kind, sector, count)."""
    return struct.pack("<II", len(entries), 0) + b"".join(
        struct.pack("<HBBIQ", slot, kind, 0, count, sector) for slot, kind, sector, count in entries) + payload


def epoch_begin(slot, sectors, digest, seq0=0, kind=1):
    return struct.pack("<HBBIQQQQ", slot, kind, 0, 12, seq0, sectors, digest, 0)


def epoch_end(slot, sectors, digest, seq0=0):
    return struct.pack("<HHIQQQ", slot, 0, 0, seq0, sectors, digest)


def point_request(request, name=""):
    return struct.pack("<QBB", request, 1, len(name)) + name.encode()


def hash_ask(request, slot, block_bytes, sector, hashes):
    return struct.pack("<QHHIQII", request, slot, 0, block_bytes, sector, len(hashes), 0) + b"".join(hashes)


def disk(slot, sectors, **more):
    return {"slot": slot, "disk_id": str(uuid.UUID(int=0xD15C0000 + slot)), "name": f"sd{slot}", "identity": "",
            "sectors": sectors, "logical_block": 512, "attach_id": str(uuid.UUID(int=1)), **more}


def client_context(folder, cert):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.load_verify_locations(folder / "ca" / "ca.pem")
    context.load_cert_chain(f"{cert}.pem", f"{cert}.key")
    context.set_alpn_protocols(["blkferry/1"])
    return context


class Ended(Failure):
    """The peer closed, with the ERROR that it sent or None."""

    def __init__(self, error):
        super().__init__(f"closed: {error}")
        self.error = error


class Peer:
    """Frames over one TLS connection."""

    def __init__(self, tls, seconds=60):
        self.tls = tls
        tls.settimeout(seconds)

    def close(self):
        self.tls.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def send(self, data):
        """All of it; Ended with the peer's reason if it closes meanwhile."""
        try:
            self.tls.sendall(data)
        except (ConnectionError, ssl.SSLError) as e:
            self.end(e)

    def _exactly(self, count):
        data = b""
        while len(data) < count:
            try:
                piece = self.tls.recv(count - len(data))
            except (ConnectionError, ssl.SSLError):
                piece = b""
            if not piece:
                raise Ended(None)
            data += piece
        return data

    def receive(self):
        """The next frame as (type, body); ERROR is raised as Ended."""
        head = self._exactly(HEADER_BYTES)
        kind, wire_len = head[5], struct.unpack_from("<I", head, 8)[0]
        body = self._exactly(wire_len)
        if kind == ERROR:
            raise Ended(json.loads(body))
        return kind, body

    def wait_for(self, kind):
        while True:
            got, body = self.receive()
            if got == kind:
                return body

    def end(self, instead=None):
        """Reads until the peer closes; its ERROR, or None."""
        try:
            while True:
                self.receive()
        except Ended as e:
            if instead is None:
                return e.error
            raise e from instead


class Agent(Peer):
    """A source with a valid certificate. Keeps to the order of batches unless told otherwise."""

    def __init__(self, bench, cert, source, address="127.0.0.1", receive_buffer=0, seconds=60):
        raw = socket.socket()
        if receive_buffer:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        raw.settimeout(seconds)
        raw.bind((address, 0))
        raw.connect(("127.0.0.1", bench.port))
        try:
            tls = client_context(bench.dir, cert).wrap_socket(raw)
        except (OSError, ssl.SSLError):
            raw.close()
            raise
        super().__init__(tls, seconds)
        self.source = source
        self.batch = self.mark = 0

    def hello(self, disks, **more):
        """Says HELLO and returns WELCOME."""
        self.send(text_frame(HELLO, {"protocol": 1, "agent_version": "0", "source": self.source,
                                     "source_id": str(uuid.uuid5(uuid.NAMESPACE_DNS, self.source)),
                                     "load_id": str(uuid.UUID(int=2)), "features": [], "disks": disks, **more}))
        welcome = json.loads(self.wait_for(WELCOME))
        self.batch, self.mark = welcome["durable_batch"], welcome["durable_mark"]
        return welcome

    def make_batch(self, entries=(), payload=b"", others=(), advance=1, consistent=True):
        """A whole batch in the order others, extents: `others` are (type, body), entries as in extents()."""
        number, before = self.batch + 1, self.mark
        bodies = [(BATCH_BEGIN, struct.pack("<QQQQ", before, before + advance, 1, 0)), *others]
        at = size = 0
        part = []
        for entry in [*entries, None]:
            more = 0 if entry is None or entry[1] not in (DATA, RESYNC_DATA) else entry[3] * 512
            if part and (entry is None or len(part) == 4096 or size + more > 900_000):
                bodies.append((EXTENTS, extents(part, payload[at:at + size])))
                at, size, part = at + size, 0, []
            part.append(entry)
            size += more
        runs = []
        for slot, kind, sector, count in sorted(entries):
            if kind >= RESYNC_DATA:
                continue
            if runs and runs[-1][0] == slot and runs[-1][1] + runs[-1][2] >= sector:
                runs[-1][2] = max(runs[-1][1] + runs[-1][2], sector + count) - runs[-1][1]
            else:
                runs.append([slot, sector, count])
        bodies.append((BATCH_END, struct.pack("<IIQQQQ", len(entries), consistent, len(payload), sum(r[2] for r in runs),
                                              set_digest(runs), 0)))
        self.batch, self.mark = number, before + advance
        return b"".join(frame(kind, body, number, i) for i, (kind, body) in enumerate(bodies))

    def sync_as_zeroes(self, slot, sectors):
        """An initial sync that finds nothing but zeroes, so that points can be made."""
        step = (1 << 32) - 1
        entries = [(slot, RESYNC_ZERO, at, min(step, sectors - at)) for at in range(0, sectors, step)]
        digest = set_digest([(0, 0, sectors)])
        self.send(self.make_batch(entries, others=[(EPOCH_BEGIN, epoch_begin(slot, sectors, digest, self.mark))]))
        self.send(self.make_batch(others=[(EPOCH_END, epoch_end(slot, sectors, digest, self.mark - 1))]))
        return struct.unpack_from("<HB", self.wait_for(EPOCH_RESULT))[1] == 1

    def wait_durable(self, batch):
        while struct.unpack_from("<Q", self.wait_for(ACK))[0] < batch:
            pass
