# SPDX-License-Identifier: Apache-2.0
"""A server that is its own CA with a source that has nothing yet, and an HTTP proxy."""

import base64
import json
import socket
import subprocess
import threading

from harness import Bench, Failure, call, program

TOKEN_BYTES = 4 + 16 + 1 + 32 + 1 + 64


class EnrolBench(Bench):
    """The server is its own CA; the source has nothing."""

    def __init__(self, life="90d", agent="", **options):
        self.life = life
        super().__init__(disks=1, mib=8, agent=agent, **options)

    def make_pki(self):
        self.pki("init", self.dir / "ca")
        self.pki("issue", self.dir / "ca", "server", "replica", "--out", self.dir)

    def write_server(self, listen=None):
        self.server_extra = f'pki = "{self.dir}/ca"\ncertificate_life = "{self.life}"'
        super().write_server()
        if listen:
            path = self.dir / "server.toml"
            path.write_text(path.read_text().replace(f"127.0.0.1:{self.port}", listen))

    def write_agent(self, **_):
        """What an administrator has before: nothing about server or certificates."""
        (self.dir / "agent.toml").write_text(f'# mine\nstate_dir = "{self.dir}/agent"\ncontrol_socket = "{self.agent_socket}"\n'
                                             f'#bandwidth = "0"\n{self.agent_extra}\n')

    def token(self, *args):
        """As an administrator gets it."""
        out = subprocess.run([program("blkferry-server"), "--config", str(self.dir / "server.toml"), "enroll-token", *args],
                             check=True, capture_output=True, text=True)
        if len(out.stdout.strip()) != TOKEN_BYTES:
            raise Failure(f"not one token on standard output: {out.stdout!r}")
        return out.stdout.strip()

    def enroll(self, token, *args, server=None, source=None, config=None, folder=None, ok=True):
        out = subprocess.run(
            [program("blkferry"), "enroll", server or f"127.0.0.1:{self.port}", "--source", source or self.source, "--token-file", "-",
             "--dir", str(folder or self.dir / "tls"), "--config", str(config or self.dir / "agent.toml"), "--json", *args],
            input=token + "\n", capture_output=True, text=True, timeout=120)
        answer = json.loads(out.stdout)
        if token.split("-")[2:3] and token.split("-")[2] in out.stdout + out.stderr:
            raise Failure("the token's secret was printed")
        if ok and not answer["ok"]:
            raise Failure(f"not enrolled: {answer}")
        if not ok and answer["ok"]:
            raise Failure(f"enrolled: {answer}")
        return answer

    def refused(self, code, part, *args, **options):
        answer = self.enroll(*args, ok=False, **options)
        if answer["code"] != code or part not in answer["error"]:
            raise Failure(f"refused with {answer}, expected {code} with {part!r}")

    def audit(self):
        return [json.loads(line) for line in (self.dir / "ca" / "audit.log").read_text().splitlines()]

    def events(self):
        return [line["event"] for line in self.audit()]

    def enrolment(self):
        return call(self.server_socket, "status")["enrolment"]

    def protect(self):
        self.producer.start()
        self.start_agent()
        call(self.agent_socket, "protect", devices=[str(p) for p in self.paths])
        self.settled()

    def no_secret_anywhere(self, *tokens):
        """Neither log, audit file nor token store holds a secret."""
        for path in (self.server.log, self.agent.log, self.dir / "ca" / "audit.log", self.dir / "ca" / "tokens.json"):
            text = path.read_text() if path.exists() else ""
            for token in tokens:
                if token.split("-")[2] in text:
                    raise Failure(f"{path.name} holds a token's secret")


class ConnectProxy:
    """A small HTTP proxy: CONNECT with Basic authentication, then bytes both ways."""

    def __init__(self, user=None, password=None, family=socket.AF_INET):
        self.want = base64.b64encode(f"{user}:{password}".encode()).decode() if user else None
        self.listener = socket.create_server(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0), family=family)
        self.port = self.listener.getsockname()[1]
        self.targets, self.bytes = [], 0
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.one, args=(client,), daemon=True).start()

    def one(self, client):
        head = b""
        try:
            while b"\r\n\r\n" not in head:
                block = client.recv(4096)
                if not block:
                    return
                head += block
            lines = head.decode().split("\r\n")
            method, target, _ = lines[0].split(" ")
            fields = dict(line.split(": ", 1) for line in lines[1:] if ": " in line)
            if method != "CONNECT":
                raise ValueError(method)
            if self.want and fields.get("Proxy-Authorization") != f"Basic {self.want}":
                client.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic\r\n\r\n")
                client.close()
                return
            self.targets.append(target)
            host, port = target.rsplit(":", 1)
            server = socket.create_connection((host.strip("[]"), int(port)), 10)
            client.sendall(b"HTTP/1.1 200 Connection established\r\nVia: test\r\n\r\n")
        except (OSError, ValueError):
            try:
                client.sendall(b"HTTP/1.1 502 Bad Gateway\r\n\r\n")
            except OSError:
                pass
            client.close()
            return
        back = threading.Thread(target=self.pump, args=(server, client), daemon=True)
        back.start()
        self.pump(client, server)

    def pump(self, a, b):
        try:
            while block := a.recv(65536):
                self.bytes += len(block)
                b.sendall(block)
            b.shutdown(socket.SHUT_WR)
        except OSError:
            for s in (a, b):
                s.close()
