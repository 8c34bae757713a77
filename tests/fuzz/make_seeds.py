#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Writes the seeds under corpus/ that are text, netlink messages or histories: tests/fuzz/make_seeds.py FOLDER."""
import functools
import pathlib
import struct
import sys

ROOT = pathlib.Path(sys.argv[1])


def save(target, name, data):
    path = ROOT / target / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())


def config():
    save("config", "agent", '\0server = "replica.example.org:1500"\nsource = "web1"\nbandwidth = "20mbit"\n'
         'batch_bytes = "16MiB"\ncompression = "zstd"\n# a comment\nlog_level = "debug"\n')
    save("config", "agent_addresses", '\0server = ["192.0.2.1:1500", "[2001:db8::1]"]\nsource = "web1"\nring = "64MiB"\n')
    save("config", "server", '\1listen = ["0.0.0.0:1500"]\nstore = "/srv/blkferry"\nchunk = "64MiB"\npoints_keep = 10\n'
         'journal_keep = "8GiB"\nsnapshot_engine = "reflink"\n')
    save("config", "key_twice", '\2workers = 2\nworkers = 3\n')
    save("config", "key_unknown", '\2no_such_key = { a = [1, 2.5, 1979-05-27] }\n')
    for name, first, text in (("size", 3, "1.5GiB"), ("rate", 4, "20mbit"), ("duration", 5, "7d"), ("endpoint", 6, "[2001:db8::1]:1500")):
        save("config", name, bytes([first]) + text.encode())


def control():
    save("control", "requests", b'\x08{"cmd": "status"}\n{"cmd": "protect", "devices": ["/dev/vda", "/dev/vdb"]}\r\n'
         b'{"cmd": "throttle", "rate_bytes": 2500000}\n')
    save("control", "answers", b'\xff{"progress": {"done_bytes": 1, "total_bytes": 2}}\n{"ok": true, "end": true, "disks": [{"slot": 0}]}\n')
    save("control", "error", b'\0{"ok": false, "end": true, "code": "not-found", "error": "vdz: no such block device"}')
    save("control", "deep", b'\xff{"a": ' + b"[" * 20 + b"]" * 20 + b"}")
    save("control", "twice", b'\xff{"a": 1, "a": -1.5e3, "\\u00e9": null}')


# Numbers of kmod/uapi/blkferry.h come from the header itself.
@functools.cache
def attributes():
    header = (pathlib.Path(__file__).parents[2] / "kmod/uapi/blkferry.h").read_text()
    body = header[header.index("enum blkferry_attr {"):]
    names = [line.split(",")[0].split("/*")[0].split("=")[0].strip() for line in body[:body.index("}")].splitlines()[1:]]
    names = [n for n in names if n.startswith("BLKFERRY_A_")]
    return {n.removeprefix("BLKFERRY_A_"): i for i, n in enumerate(names)}


def attr(name, data):
    data = struct.pack("<HH", 4 + len(data), attributes()[name]) + data
    return data + b"\0" * (-len(data) % 4)


def u32(n):
    return struct.pack("<I", n)


def u64(n):
    return struct.pack("<Q", n)


def netlink():
    def message(kind, flags, body):
        return struct.pack("<IHHII", 16 + len(body), kind, flags, 1, 0) + body
    genl = struct.pack("<BBH", 5, 1, 0)
    disk = genl + attr("DISK", u32(1)) + attr("DEV", u64(253 << 32)) + attr("NAME", b"vda\0") + attr("DATA_BYTES", u64(1 << 20))
    disk += attr("DESCS", u32(1024)) + attr("INLINE_MAX", u32(65536)) + attr("STATE", u32(3)) + attr("FLAGS", u32(0))
    disk += attr("SECTORS", u64(8192)) + attr("BLOCK_SHIFT", u32(12)) + attr("ATTACH_ID", bytes(16))
    for name in ("GAP_SEQ", "CLOSE_SEQ", "EPOCH_SEQ", "ACTIVE_BLOCKS", "SNAP_BLOCKS", "MEMORY"):
        disk += attr(name, u64(0))
    disk += attr("COUNTERS", bytes(96))
    sets = b"".join(u64(1 << (n + 12)) + u64(0) * (n + 11) + u64(5) + u64(1) + bytes(8 * (64 - n - 13)) for n in range(3))
    measured = disk + attr("LATENCY", sets) + attr("TICKS", u64(2400)) + attr("TICKS_NS", u64(1000))
    no_ratio = disk + attr("LATENCY", sets) + attr("TICKS", u64(0)) + attr("TICKS_NS", u64(1000))
    cut_set = disk + attr("LATENCY", sets[:-8]) + attr("TICKS", u64(2400)) + attr("TICKS_NS", u64(1000))
    info = genl + attr("ABI", u32(1)) + attr("VERSION", b"0.1.0\0") + attr("LOAD_ID", bytes(range(16))) + attr("SEQ", u64(9))
    info += attr("VOID_SEQ", u64(0)) + attr("INFLIGHT", u32(2))
    event = genl + attr("DISK", u32(1)) + attr("EVENT", u32(1)) + attr("STATE", u32(1)) + attr("FLAGS", u32(1)) + attr("SEQ", u64(5))
    text = struct.pack("<HH", 4 + 8, 1) + b"no disk\0"  # NLMSGERR_ATTR_MSG
    refused = struct.pack("<i", -22) + struct.pack("<IHHII", 20, 30, 5, 1, 0) + bytes(4) + text
    capped = struct.pack("<i", -16) + struct.pack("<IHHII", 20, 30, 5, 1, 0) + text
    save("netlink", "disk", b"\0" + message(30, 2, disk))
    save("netlink", "disk_latency", b"\0" + message(30, 2, measured))
    save("netlink", "disk_latency_no_ratio", b"\0" + message(30, 2, no_ratio))
    save("netlink", "disk_latency_cut", b"\0" + message(30, 2, cut_set))
    save("netlink", "dump", b"\0" + message(30, 2, disk) + message(30, 2, disk) + message(3, 2, u32(0)))
    save("netlink", "info", b"\0" + message(30, 0, info) + message(2, 0x100, u32(0) + bytes(16)))
    save("netlink", "event", b"\1" + message(30, 0, event))
    save("netlink", "refused", b"\0" + message(2, 0x200, refused))
    save("netlink", "refused_capped", b"\0" + message(2, 0x300, capped))


def opener():
    def request(op, disk, body=b""):
        return struct.pack("<IHHII", 0x706f6662, 1, op, disk, len(body)) + body

    def ask(command, flags, body=b""):
        body = struct.pack("<BBH", command, 1, 0) + body
        return request(2, 0, struct.pack("<IHHII", 16 + len(body), 0, flags, 7, 0) + body)

    def answer(kind, err, body=b""):
        return struct.pack("<IHHiI", 0x706f6662, 1, kind, err, len(body)) + body
    command = {name: number for number, name in enumerate(
        ("INFO", "SEQ_FLOOR", "ATTACH", "DETACH", "DISK_GET", "RESYNC_BEGIN", "RESYNC_CLEAR", "RESYNC_END", "MARK_DIRTY", "CUT"), 1)}
    attach = attr("DEV", u64(253 << 32)) + attr("FD", u32(0)) + attr("DATA_BYTES", u64(1 << 20)) + attr("DESCS", u32(1024))
    save("opener", "ring", b"\0" + request(1, 3))
    save("opener", "attach", b"\2" + ask(command["ATTACH"], 5, attach))
    save("opener", "dump", b"\0" + ask(command["DISK_GET"], 0x301))
    save("opener", "clear", b"\0" + ask(command["RESYNC_CLEAR"], 5, attr("DISK", u32(1)) + attr("RANGES", bytes(64)) + attr("SEQ", u64(4))))
    save("opener", "cut", b"\0" + ask(command["CUT"], 5, attr("FREEZE_DEVS", bytes(16)) + attr("FREEZE_MS", u32(100))))
    save("opener", "answer_ring", b"\3" + answer(1, 0))
    save("opener", "answer_datagram", b"\1" + answer(2, 0, bytes(36)))
    save("opener", "answer_refused", b"\1" + answer(3, 22, b"no such disk"))


def producer():
    body = struct.pack("<IIQQIIIIQ", 1, 3, 7, 1 << 20, 1024, 65536, 0, 12, 8192) + bytes(16) + struct.pack("<6Q", *[0] * 6)
    body += struct.pack("<IQQ", 2, 5, 6) + struct.pack("<H", 3) + b"vda" + struct.pack("<H", 8) + b"/tmp/vda"
    save("producer", "disk", b"\0" + body)
    save("producer", "ranges", b"\1" + struct.pack("<IQQQQ", 2, 0, 8, 64, 1))
    save("producer", "string", b"\2" + struct.pack("<H", 5) + b"/a/b/" + bytes(20))


def histories():
    def extents(*entries):
        return bytes([1, len(entries) - 1]) + b"".join(struct.pack("<BHBB", k - 1 + 8 * d, s, n - 1, f) for d, k, s, n, f in entries)

    def epoch(begin, disk, cover):
        return bytes([3 if begin else 4, disk | 0x10]) + struct.pack("<H", cover)
    begin, end, apply = b"\0\1", b"\6\0", b"\x09"
    question = b"\x0a" + struct.pack("<HBIB", 0, 4, 0, 3)
    save("source", "writes", begin + extents((0, 1, 8, 16, 0x11), (1, 2, 0, 8, 0), (0, 3, 64, 8, 0)) + end + apply + question)
    save("source", "epoch", begin + end + begin + epoch(True, 0, 64) + extents((0, 1, 8, 8, 1), (0, 4, 0, 64, 2)) +
         epoch(False, 0, 64) + end + apply + question)
    save("source", "point", begin + extents((0, 1, 0, 8, 9)) + b"\5\0" + end + apply + b"\x0b\0" + begin + end + apply + b"\x0c\0")
    save("source", "kill", begin + extents((0, 1, 0, 8, 9)) + end + apply + begin + extents((0, 1, 4, 8, 8)) + b"\x0d" + begin + end)
    save("source", "sessions", begin + extents((1, 1, 990, 11, 9)) + b"\x08\0" + begin + end + b"\x08\1" + begin + end + b"\x08\x18")
    save("source", "raw", begin + b"\7\x07" + bytes([40]) + bytes(40) + b"\0")


def maps():
    def op(kind, flags, sector, nr):
        return struct.pack("<BBQQ", kind, flags, sector, nr)
    save("kmod_maps", "round", op(0, 0, 8, 64) + op(0, 0, 262144, 9) + op(2, 0, 0, 0) + op(0, 0, 16, 8) + op(3, 1, 0, 0) +
         op(1, 0, 0, 400))
    save("kmod_maps", "ends", op(0, 0x80, 2**64 - 1, 2) + op(0, 0x80, 524900, 2**63) + op(0, 0x40, 0, 524899))
    save("kmod_maps", "overlaps", op(0x80, 0, 0, 200) + op(0x80, 0, 100, 10) + op(0x80, 0x40, 0, 9000) + op(0x81, 0, 1, 0) +
         op(0x81, 0, 0, 0))
    save("extent_set", "all", b"".join(struct.pack("<BHB", k, s, n) for k, s, n in
                                       ((0, 0, 8), (0, 8, 8), (0, 32, 8), (1, 4, 30), (2, 0, 64), (3, 0, 64), (0, 4095, 9))))


for make in (config, control, netlink, opener, producer, histories, maps):
    make()
