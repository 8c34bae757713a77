#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Who has no valid certificate gets nothing; garbage ends a connection and nothing else."""

import random
import socket
import ssl
import subprocess
import threading

from harness import Bench, Failure, call, eventually, main


def refused_lines(b):
    return [line for line in b.server.text().splitlines() if "127.0.0.1" in line and
            any(word in line for word in ("refus", "denied", "error", "ended", "reject"))]


def sources(b):
    return call(b.server_socket, "status")["sources"]


def wait_refused(b, text_of_agent):
    """The agent says why it is refused, and says it once, however often it tries."""
    eventually("the agent is refused", lambda: b.status()["state"] in ("DISCONNECTED",) and b.status()["cause"], 30)
    tries = eventually("it tries again", lambda: len(refused_lines(b)) >= 2 or len(refused_lines(b)), 30)
    lines = [line for line in b.agent.text().splitlines() if "event=disconnected" in line]
    if len(set(line.split("event=")[1] for line in lines)) != len(lines):
        raise Failure(f"the same refusal was logged more than once: {lines}")
    if any(s["connected"] for s in sources(b)):
        raise Failure("the server let the source in")
    if not b.status()["cause"]:
        raise Failure(f"no cause is told ({text_of_agent}, {tries})")


def bench():
    return Bench(disks=1, mib=8)


def wrong_ca():
    with bench() as b:
        b.pki("init", b.dir / "other")
        b.pki("issue", b.dir / "other", "source", b.source, "--out", b.dir / "other")
        b.write_agent(cert=b.dir / "other" / f"source-{b.source}")
        b.start()
        wait_refused(b, "certificate of another CA")


def agent_does_not_trust_the_server():
    with bench() as b:
        b.pki("init", b.dir / "other")
        b.write_agent(ca=b.dir / "other" / "ca.pem")
        b.start()
        wait_refused(b, "server of another CA")


def expired_certificate():
    """Signed by the right CA for the right source, but its time is over."""
    with bench() as b:
        out = b.dir / "expired"
        out.mkdir()
        (out / "index").write_text("")
        (out / "conf").write_text(
            f"[ca]\ndefault_ca=d\n[d]\ndatabase={out}/index\nnew_certs_dir={out}\nrand_serial=yes\n"
            "default_md=sha256\npolicy=p\n[p]\ncommonName=supplied\n"
            "[req]\ndistinguished_name=n\n[n]\n[e]\nbasicConstraints=critical,CA:FALSE\n"
            "keyUsage=critical,digitalSignature\nextendedKeyUsage=clientAuth\n"
            f"subjectAltName=URI:blkferry:source:{b.source}\n")
        cert = out / "source"
        run = lambda *args: subprocess.run(["openssl", *map(str, args)], check=True, capture_output=True)
        run("req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-config", out / "conf",
            "-subj", f"/CN={b.source}", "-keyout", f"{cert}.key", "-out", f"{cert}.csr")
        run("ca", "-batch", "-notext", "-config", out / "conf", "-extensions", "e", "-cert", b.dir / "ca" / "ca.pem",
            "-keyfile", b.dir / "ca" / "ca.key", "-startdate", "20200101000000Z", "-enddate", "20200201000000Z",
            "-in", f"{cert}.csr", "-out", f"{cert}.pem")
        (out / "source.key").chmod(0o600)
        b.write_agent(cert=cert)
        b.start()
        eventually("the expired certificate is named", lambda: "expired" in b.agent.text() + b.server.text(), 30)
        if any(s["connected"] for s in sources(b)):
            raise Failure("the server let the source in")


def a_source_that_plays_server():
    """Whoever holds a source's key must not be able to take another source's data."""
    with bench() as b:
        b.pki("issue", b.dir / "ca", "source", "mallory", "--out", b.dir)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.load_cert_chain(b.dir / "source-mallory.pem", b.dir / "source-mallory.key")
        context.load_verify_locations(b.dir / "ca" / "ca.pem")
        context.verify_mode = ssl.CERT_REQUIRED
        context.set_alpn_protocols(["blkferry/1"])
        seen = []

        def serve(listener):
            while True:
                try:
                    raw, _ = listener.accept()
                except OSError:
                    return
                raw.settimeout(30)
                try:
                    with context.wrap_socket(raw, server_side=True) as s:
                        seen.append(s.recv(4096))
                except (OSError, ssl.SSLError) as e:
                    seen.append(e)

        with socket.create_server(("127.0.0.1", 0)) as listener:
            threading.Thread(target=serve, args=(listener,), daemon=True).start()
            b.write_agent(port=listener.getsockname()[1])
            b.producer.start()
            b.start_agent()
            call(b.agent_socket, "protect", devices=[str(p) for p in b.paths])
            eventually("the agent names the role", lambda: "'mallory' is not made for this role" in b.status()["cause"], 30)
            eventually("it tried", lambda: seen, 30)
        if any(isinstance(got, bytes) and got for got in seen):
            raise Failure(f"the agent sent something: {seen}")
        # Nor does the server daemon itself start with such a certificate.
        b.server_extra = ""
        text = (b.dir / "server.toml").read_text().replace("server-replica", "source-mallory")
        (b.dir / "server.toml").write_text(text)
        b.server.start()
        if b.server.child.wait(60) == 0 or "one of role server is needed" not in b.server.text():
            raise Failure(f"the server starts as a source: {b.server.tail()}")


def identity_of_another_source():
    with bench() as b:
        b.pki("issue", b.dir / "ca", "source", "mallory", "--out", b.dir)
        b.write_agent(cert=b.dir / "source-mallory")
        b.start()
        wait_refused(b, "name in HELLO is not that of the certificate")
        if sources(b):
            raise Failure(f"the server made a replica for a liar: {sources(b)}")


def plain_tcp_and_garbage():
    rng = random.Random(1)
    with bench() as b:
        b.start()
        b.settled()
        for payload in (b"GET / HTTP/1.0\r\n\r\n", rng.randbytes(5000), b"BFR1" + bytes(44)):
            with socket.create_connection(("127.0.0.1", b.port), 10) as s:
                s.sendall(payload)
                s.settimeout(30)
                got = b""
                try:
                    while block := s.recv(4096):
                        got += block
                except OSError:
                    pass
                if len(got) > 64:
                    raise Failure(f"a plain connection got {len(got)} bytes")
        b.producer.ask("write 0 16 8 7")
        b.settled()
        b.check_equal("beside plain connections")


def garbage_frames_with_a_valid_certificate():
    rng = random.Random(2)
    with bench() as b:
        b.pki("issue", b.dir / "ca", "source", "fuzz", "--out", b.dir)
        b.start()
        b.settled()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False
        context.load_verify_locations(b.dir / "ca" / "ca.pem")
        context.load_cert_chain(b.dir / "source-fuzz.pem", b.dir / "source-fuzz.key")
        context.set_alpn_protocols(["blkferry/1"])
        for i in range(20):
            payload = rng.randbytes(rng.randrange(1, 3000)) if i % 2 else b"BFR1\x01" + rng.randbytes(200)
            with socket.create_connection(("127.0.0.1", b.port), 10) as raw, context.wrap_socket(raw) as s:
                s.settimeout(30)
                try:
                    s.sendall(payload.ljust(48, b"\0"))
                    while s.recv(4096):
                        pass
                except OSError:
                    pass
        if not b.server.alive:
            raise Failure("the server died of garbage")
        if any(s["source"] == "fuzz" and s["connected"] for s in sources(b)):
            raise Failure("garbage made a session")
        b.producer.ask("write 0 64 8 9")
        b.settled()
        b.check_equal("beside garbage frames")


main([wrong_ca, expired_certificate, a_source_that_plays_server, agent_does_not_trust_the_server, identity_of_another_source, plain_tcp_and_garbage,
      garbage_frames_with_a_valid_certificate])
