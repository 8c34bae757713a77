#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The first and the last day of a source: disks that are only registered, and `blkferry uninstall`."""

import json
import socket
import ssl
import subprocess

from enrolling import EnrolBench
from harness import Failure, Refused, call, eventually, main, program


def registered_only():
    """--no-replication: known, but neither tracked nor shipped, also after a restart; then protected with the same identity."""
    with EnrolBench() as b:
        b.start_server()
        b.enroll(b.token())
        b.producer.start()
        b.start_agent()
        device = str(b.paths[0])
        out = subprocess.run([program("blkferry"), "protect", device, "--no-replication", "--json", "--socket", str(b.agent_socket)], check=True,
                             capture_output=True, text=True)
        first = json.loads(out.stdout)["disks"][0]
        for _ in range(2):
            s = b.status()
            if s["state"] != "STOPPED" or s["disks"] or call(b.server_socket, "status")["sources"]:
                raise Failure(f"a disk that is only registered: {s}")
            b.agent.stop()
            b.start_agent()
        try:
            call(b.agent_socket, "protect", devices=[device], replicate=False)
            raise Failure("registered twice")
        except Refused as e:
            if e.code != "exists":
                raise
        second = call(b.agent_socket, "protect", devices=[device])["disks"][0]
        if (first["slot"], first["disk_id"]) != (second["slot"], second["disk_id"]):
            raise Failure(f"another identity: {first} {second}")
        b.settled()
        b.check_equal("after it was only registered")


def uninstall(b, *args, want=0):
    out = subprocess.run([program("blkferry"), "uninstall", "--config", str(b.dir / "agent.toml"), "--socket", str(b.agent_socket), "--json",
                          *args], capture_output=True, text=True)
    if out.returncode != want:
        raise Failure(f"uninstall ended with {out.returncode}: {out.stdout} {out.stderr}")
    return json.loads(out.stdout)


def source(b):
    return call(b.server_socket, "status")["sources"][0]


def uninstall_a_source():
    with EnrolBench() as b:
        b.start_server()
        b.enroll(b.token())
        b.protect()
        b.mark(name="last")
        stolen = (b.dir / "tls" / "source.pem").read_bytes()
        answer = uninstall(b)
        if not answer["complete"]:
            raise Failure(f"uninstall: {answer}")
        left = [str(p.relative_to(b.dir)) for name in ("tls", "agent", "agent.toml") if (p := b.dir / name).exists()]
        if left:
            raise Failure(f"left behind: {left}")
        s = b.status()
        if s["disks"] or s["state"] != "STOPPED":
            raise Failure(f"the agent still has disks: {s}")
        eventually("the connection is over", lambda: not source(b)["connected"], 30)
        for restart in (False, True):
            if restart:
                b.server.stop()
                b.start_server()
            if not source(b)["retired_ms"]:
                raise Failure(f"the server forgot: {source(b)}")
            eventually("the store is open", lambda: source(b)["store_state"] == "ready", 60)
            points = [p["point"] for p in call(b.server_socket, "points", source=b.source)["points"]]
            if points[-1:] != ["last"]:
                raise Failure(f"the recovery points: {points}")
        if "certificate-revoked" not in b.events():
            raise Failure(f"audit: {b.events()}")
        # A copy of the key is of no use any more.
        (b.dir / "copy.pem").write_bytes(stolen)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.load_verify_locations(b.dir / "ca" / "ca.pem")
        context.load_cert_chain(b.dir / "copy.pem")
        try:
            with socket.create_connection(("127.0.0.1", b.port), 10) as raw, context.wrap_socket(raw) as tls:
                tls.settimeout(30)
                tls.recv(1)
            raise Failure("the certificate of a retired source is accepted")
        except ssl.SSLError as e:
            if "REVOKED" not in str(e):
                raise Failure(f"refused, but not as revoked: {e}") from None


def uninstall_a_launched_machine():
    """It has its source's identity; the server must not hear of it."""
    with EnrolBench() as b:
        b.start_server()
        b.enroll(b.token())
        b.protect()
        answer = uninstall(b, "--local")
        if not answer["complete"] or source(b)["retired_ms"] or "certificate-revoked" in b.events():
            raise Failure(f"the source was retired: {answer}, {source(b)}")
        if (b.dir / "tls").exists() or (b.dir / "agent.toml").exists():
            raise Failure("key or configuration stayed")


def uninstall_without_agent_or_server():
    with EnrolBench() as b:
        b.start_server()
        b.enroll(b.token())
        b.protect()
        b.server.stop()
        eventually("the agent notices", lambda: not b.status()["connected"], 60)
        b.agent.stop()
        refused = uninstall(b, want=3)
        if refused["ok"] or not (b.dir / "agent.toml").exists() or "--force" not in refused["error"]:
            raise Failure(f"without an agent: {refused}")
        b.start_agent()
        answer = uninstall(b, want=1)
        said = [x["step"] for x in answer["steps"] if not x["done"]]
        if len(said) != 1 or f"server revoke {b.source}" not in said[0]:
            raise Failure(f"without a server: {answer}")
        if (b.dir / "agent.toml").exists() or b.status()["disks"]:
            raise Failure("not everything is gone")


main([registered_only, uninstall_a_source, uninstall_a_launched_machine, uninstall_without_agent_or_server])
