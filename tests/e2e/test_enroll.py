#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""From no certificate to a replicating source with a token; renewal, revocation, proxy, IPv6; and who tries it otherwise."""

import json
import os
import socket
import ssl
import subprocess
import time

from enrolling import ConnectProxy, EnrolBench
from harness import Bench, Failure, Refused, call, eventually, main, program
import wire

CERT_REQUEST, CERT_REPLY = 16, 17


def from_token_to_replication():
    with EnrolBench() as b:
        b.start_server()
        token = b.token()
        b.enroll(token)
        mode = (b.dir / "tls" / "source.pem").stat().st_mode & 0o777
        if mode != 0o600:
            raise Failure(f"the key's file has mode {mode:o}")
        text = (b.dir / "agent.toml").read_text()
        if "# mine" not in text or f'state_dir = "{b.dir}/agent"' not in text or 'server_name = "replica"' not in text:
            raise Failure(f"agent.toml: {text}")
        subprocess.run([program("blkferry"), "config", "check", "agent", str(b.dir / "agent.toml")], check=True, capture_output=True)
        b.protect()
        b.producer.ask("write 0 16 8 7")
        b.settled()
        b.check_equal("after enrolment")
        tokens = call(b.server_socket, "tokens")["tokens"]
        if [(t["state"], t["source"]) for t in tokens] != [("used", b.source)]:
            raise Failure(f"tokens: {tokens}")
        if b.events() != ["token-made", "token-used", "certificate-issued"]:
            raise Failure(f"audit: {b.audit()}")
        made = b.audit()[0]
        if made["by"] != f"uid {os.getuid()}" or "token" not in made or "time" not in made:
            raise Failure(f"audit: who, what, when? {made}")
        if (b.dir / "ca" / "tokens.json").stat().st_mode & 0o777 != 0o600:
            raise Failure("the tokens' file is readable by others")
        b.no_secret_anywhere(token)


def tokens_that_are_of_no_use():
    with EnrolBench() as b:
        b.start_server()
        # Without an open token a stranger does not get through the TLS handshake.
        nothing = b.enroll(f"bf1-{'0' * 16}-{'1' * 32}-{'2' * 64}", ok=False)
        if nothing["code"] not in ("denied", "closed", "io", "invalid") or b.enrolment()["open"]:
            raise Failure(f"no token is open: {nothing}")
        used = b.token()
        b.enroll(used, source="first")
        b.refused("denied", "used already", used, source="first", folder=b.dir / "tls2", config=b.dir / "a2.toml")
        spare = b.token()
        prefix, ident, secret, pin = spare.split("-")
        b.refused("denied", "not known here", "-".join([prefix, ident, "0" * 32, pin]))
        b.refused("denied", "not known here", "-".join([prefix, "0" * 16, secret, pin]))
        for text in ("", "bf1-x", spare[:-1], spare.upper(), spare + "0"):
            b.refused("invalid", "no enrolment token", text)
        # Somebody in between with another CA: the client notices before it says a word of the secret.
        b.refused("denied", "not the one that the token names", "-".join([prefix, ident, secret, "0" * 64]))
        b.refused("exists", "there is a source 'first'", spare, source="first")
        bound = b.token("--source", "first")
        b.refused("denied", "is for source 'first'", bound, source="second")
        b.enroll(bound, source="first", folder=b.dir / "tls3", config=b.dir / "a3.toml")
        ident = spare.split("-")[1]
        call(b.server_socket, "token_revoke", id=ident)
        keep_open = b.token()
        b.refused("denied", "revoked", spare)
        short = b.token("--expires", "1s")
        time.sleep(1.1)  # its life, not a guess
        b.refused("denied", "expired", short)
        eventually("the audit file tells of the expiry", lambda: "token-expired" in b.events(), 30)
        events = b.events()
        for event in ("refused", "token-revoked"):
            if event not in events:
                raise Failure(f"{event} is not in the audit file: {events}")
        b.no_secret_anywhere(used, spare, bound, short, keep_open)
        if b.enrolment()["counters"]["refused"] < 7:
            raise Failure(f"counters: {b.enrolment()}")


def a_lost_answer_is_told_again():
    """The token was used, the answer never arrived: the same key gets the same certificate, another key nothing."""
    with EnrolBench() as b:
        b.start_server()
        token = b.token()
        b.enroll(token)
        (b.dir / "tls" / "source.pending").write_text((b.dir / "tls" / "source.pem").read_text())
        (b.dir / "tls" / "source.pending").chmod(0o600)
        before = (b.dir / "tls" / "source.pem").read_text().split("-----BEGIN CERT")[1]
        b.enroll(token)
        if (b.dir / "tls" / "source.pem").read_text().split("-----BEGIN CERT")[1] != before:
            raise Failure("another certificate came")
        if "certificate-told-again" not in b.events():
            raise Failure(f"audit: {b.events()}")


class Stranger:
    """Speaks enrolment itself."""

    def __init__(self, b, alpn="blkferry-enroll/1"):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.check_hostname = False
        context.load_verify_locations(b.dir / "ca" / "ca.pem")
        context.set_alpn_protocols([alpn])
        self.raw = socket.create_connection(("127.0.0.1", b.port), 10)
        self.tls = context.wrap_socket(self.raw)
        self.tls.settimeout(30)

    def send(self, data):
        self.tls.sendall(data)
        return self

    def frame(self):
        head = self.read(48)
        if len(head) < 48:
            return None, None
        body = self.read(int.from_bytes(head[8:12], "little"))
        return head[5], json.loads(body)

    def read(self, count):
        got = b""
        try:
            while len(got) < count and (block := self.tls.recv(count - len(got))):
                got += block
        except OSError:
            pass
        return got

    def close(self):
        self.tls.close()


def csr(b, name, uri=None, key=("ec", "-pkeyopt", "ec_paramgen_curve:P-256")):
    out = b.dir / f"csr-{name}"
    subprocess.run(["openssl", "req", "-new", "-newkey", *key, "-nodes", "-subj", f"/CN={name}", "-keyout", f"{out}.key", "-out",
                    f"{out}.pem", "-addext", f"subjectAltName=URI:{uri or 'blkferry:source:' + name}"], check=True, capture_output=True)
    return out.with_name(out.name + ".pem").read_text()


def request(token, source, text):
    _, ident, secret, _ = token.split("-")
    return {"source": source, "csr": text, "token_id": ident, "token_secret": secret, "agent_version": "0"}


def hostile_requests():
    with EnrolBench() as b:
        b.start_server()
        token = b.token()
        good = csr(b, "mallory")

        def ask(value, want, part):
            s = Stranger(b).send(wire.text_frame(CERT_REQUEST, value))
            kind, body = s.frame()
            s.close()
            said = (body.get("code"), body.get("text", ""))
            if kind not in (CERT_REPLY, wire.ERROR) or said[0] not in want or part not in said[1]:
                raise Failure(f"{part!r} expected with {want}, got type {kind}: {body}")

        ask(request(token, "mallory", csr(b, "other")), "denied", "certificate request for source 'other'")
        ask(request(token, "mallory", csr(b, "srv", "blkferry:server:mallory")), "denied", "for server 'mallory'")
        ask(request(token, "mallory", csr(b, "weak", "blkferry:source:mallory", ("rsa:1024",))), "denied", "too weak")
        ask(request(token, "mallory", good[:200] + "AAAA" + good[204:]), ("denied", "invalid"), "")
        ask(request(token, "mallory", "x" * 8193), "invalid", "'csr'")
        ask(request(token, "../../etc", good), "invalid", "'source'")
        ask({**request(token, "mallory", good), "token_secret": ""}, "invalid", "token_id")
        ask({**request(token, "mallory", good), "token_id": "", "token_secret": ""}, "denied", "token is needed")
        # Other frames than the one, garbage, more than any request may have.
        for data in (wire.frame(wire.HEARTBEAT, b"{}"), wire.frame(wire.HELLO, b"{}"), os.urandom(60),
                     wire.header(CERT_REQUEST, 65537, 65537, 0)):
            s = Stranger(b).send(data)
            kind, body = s.frame()
            if kind != wire.ERROR:
                raise Failure(f"{data[:8]!r} is answered by {kind} {body}")
            s.close()
        # With the ALPN name of replication nobody comes in without a certificate.
        try:
            s = Stranger(b, "blkferry/1").send(wire.text_frame(CERT_REQUEST, request(token, "mallory", good)))
            if s.frame() != (None, None):
                raise Failure("a stranger was heard on the replication protocol")
        except OSError:
            pass
        # Silence and a second question on one connection.
        s = Stranger(b).send(wire.text_frame(CERT_REQUEST, request(token, "mallory", good)))
        if s.frame()[1]["code"] != "":
            raise Failure("the honest request was refused after all that")
        s.send(wire.text_frame(CERT_REQUEST, request(token, "mallory", good)))
        if s.frame()[0] != wire.ERROR:
            raise Failure("two requests on one connection")
        s.close()
        if any(x["connected"] for x in call(b.server_socket, "status")["sources"]):
            raise Failure("enrolment made a session")
        names = {line.get("source") for line in b.audit() if line["event"] == "certificate-issued"}
        if names != {"mallory"}:
            raise Failure(f"certificates were issued to {names}")


def a_flood_of_strangers():
    """Many at once, with wrong tokens and silent ones: the audit file stays small, the honest one gets in."""
    with EnrolBench() as b:
        b.start_server()
        token = b.token()
        wrong = request(token, "mallory", csr(b, "mallory"))
        wrong["token_secret"] = "0" * 32
        silent = [Stranger(b) for _ in range(16)]
        for _ in range(60):
            s = Stranger(b).send(wire.text_frame(CERT_REQUEST, wrong))
            s.frame()
            s.close()
        b.enroll(token)
        lines = [x for x in b.audit() if x["event"] == "refused"]
        if len(lines) > 20:
            raise Failure(f"{len(lines)} refusals in the audit file")
        if b.enrolment()["counters"] | {"renewed": 0} != {"enrolled": 1, "refused": 60, "renewed": 0, "revoked": 0}:
            raise Failure(f"counters: {b.enrolment()}")
        for s in silent:
            s.close()


def fingerprint(b):
    text = subprocess.run(["openssl", "x509", "-in", str(b.dir / "tls" / "source.pem"), "-noout", "-serial"], check=True,
                          capture_output=True, text=True).stdout
    return text.strip()


def renewal_without_losing_the_connection():
    with EnrolBench(life="30s") as b:
        b.start_server()
        b.enroll(b.token())
        b.protect()
        session = call(b.server_socket, "status")["sources"][0]["session"]
        before = fingerprint(b)
        eventually("the certificate is renewed twice", lambda: b.status()["certificate"]["renewed"] >= 2, 120)
        s = b.status()["certificate"]
        if s["error"] or fingerprint(b) == before or s["renew_ms"] >= s["not_after_ms"]:
            raise Failure(f"status: {s}, {fingerprint(b)}")
        if call(b.server_socket, "status")["sources"][0]["session"] != session:
            raise Failure("the session was lost by the renewal")
        if b.events().count("certificate-renewed") < 2 or b.enrolment()["counters"]["renewed"] < 2:
            raise Failure(f"audit: {b.events()}")
        # The new one is what a new connection shows; the first has long expired.
        b.agent.stop()
        b.start_agent()
        b.producer.ask("write 0 64 8 3")
        b.settled()
        b.check_equal("with the renewed certificate")
        if (b.dir / "tls" / "source.pem").stat().st_mode & 0o777 != 0o600:
            raise Failure("the renewed key's file is readable by others")


def renewal_that_cannot_be_written():
    """Said in status and log, tried again, and done as soon as it can be."""
    with EnrolBench(life="60s") as b:
        b.start_server()
        b.enroll(b.token())
        ca = (b.dir / "tls" / "ca.pem")
        kept = ca.read_text()
        b.protect()
        ca.write_text("nothing of use\n")
        eventually("the failure is told", lambda: b.status()["certificate"]["error"], 120)
        ca.write_text(kept)
        eventually("it is renewed", lambda: b.status()["certificate"]["renewed"] >= 1, 120)
        if b.status()["certificate"]["error"]:
            raise Failure(f"the error stays: {b.status()['certificate']}")


def revocation_at_once():
    with EnrolBench() as b:
        b.start_server()
        b.enroll(b.token())
        b.protect()
        points = call(b.server_socket, "points")["points"]
        out = subprocess.run([program("blkferry"), "server", "revoke", b.source, "--json", "--socket", str(b.server_socket)], check=True,
                             capture_output=True, text=True)
        answer = json.loads(out.stdout)
        if len(answer["serials"]) != 1 or answer["sessions_ended"] != 1:
            raise Failure(f"revoke: {answer}")
        eventually("the agent knows why", lambda: "revoked" in b.status()["cause"], 30)
        for restart in (False, True):
            if restart:  # it is not only remembered
                b.server.stop()
                b.start_server()
            count = b.server.text().count("is revoked")
            eventually("it tries again and is refused", lambda: b.server.text().count("is revoked") > count, 60)
            if call(b.server_socket, "status")["sources"][0]["connected"]:
                raise Failure("a revoked source is connected")
        if call(b.server_socket, "points")["points"] != points:
            raise Failure("revocation touched the recovery points")
        try:
            call(b.server_socket, "revoke", source=b.source)
            raise Failure("revoked twice")
        except Refused as e:
            if e.code != "not-found":
                raise
        # A token for this name brings it back.
        b.agent.stop()
        b.enroll(b.token("--source", b.source))
        b.start_agent()
        b.settled()
        events = b.events()
        if events.count("certificate-revoked") != 1:
            raise Failure(f"audit: {events}")


def through_a_proxy():
    proxy = ConnectProxy("ferry", "s3cr3t of the proxy")
    with EnrolBench() as b:
        b.start_server()
        password = b.dir / "proxy.password"
        password.write_text("wrong\n")
        password.chmod(0o600)
        arguments = ("--proxy", f"http://ferry@127.0.0.1:{proxy.port}", "--proxy-password-file", str(password))
        token = b.token()
        b.refused("denied", "407", token, *arguments)
        password.write_text("s3cr3t of the proxy\n")
        password.chmod(0o644)
        b.refused("denied", "chmod 600", token, *arguments)
        password.chmod(0o600)
        b.enroll(token, *arguments)
        b.protect()
        b.producer.ask("write 0 16 8 7")
        b.settled()
        b.check_equal("through a proxy")
        if set(proxy.targets) != {f"127.0.0.1:{b.port}"} or proxy.bytes < 8 << 10:
            raise Failure(f"the proxy saw {proxy.targets}, {proxy.bytes} bytes")
        if "s3cr3t" in b.agent.text() + (b.dir / "agent.toml").read_text():
            raise Failure("the password is in a log or in the configuration")
        # Wrong password: named, and good again by itself when the file is.
        password.write_text("changed\n")
        b.server.stop()
        b.start_server()
        eventually("the proxy's refusal is told", lambda: "407" in b.status()["cause"], 60)
        password.write_text("s3cr3t of the proxy\n")
        b.settled()
        # A server that the proxy does not reach.
        b.server.stop()
        eventually("the proxy's failure is told", lambda: "502" in b.status()["cause"], 60)


def by_ipv6():
    if not socket.has_ipv6:
        return
    proxy = ConnectProxy(family=socket.AF_INET6)
    with EnrolBench() as b:
        b.write_server(listen=f"[::1]:{b.port}")
        b.start_server()
        b.enroll(b.token(), server=f"[::1]:{b.port}")
        b.protect()
        peer = call(b.server_socket, "status")["sources"][0]["peer"]
        if not peer.startswith("[::1]:"):
            raise Failure(f"not by IPv6: {peer}")
        b.check_equal("by IPv6")
        b.agent.stop()
        path = b.dir / "agent.toml"
        path.write_text(path.read_text() + f'proxy = "http://[::1]:{proxy.port}"\n')
        b.start_agent()
        b.settled()
        if proxy.targets != [f"[::1]:{b.port}"]:
            raise Failure(f"the proxy saw {proxy.targets}")


def a_server_without_a_ca():
    with Bench(disks=1, mib=8) as b:
        b.start_server()
        try:
            call(b.server_socket, "enroll_token")
            raise Failure("a token without a CA")
        except Refused as e:
            if e.code != "unsupported":
                raise
        if call(b.server_socket, "status")["enrolment"] is not None:
            raise Failure("status shows enrolment")


main([from_token_to_replication, tokens_that_are_of_no_use, a_lost_answer_is_told_again, hostile_requests, a_flood_of_strangers,
      renewal_without_losing_the_connection, renewal_that_cannot_be_written, revocation_at_once, through_a_proxy, by_ipv6,
      a_server_without_a_ca])
