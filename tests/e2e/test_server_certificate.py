#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The server's own certificate: renewed in time where its CA's key is on the server, told of where it is not; kept when that fails."""

import json
import os
import shutil
import subprocess
import time

from enrolling import EnrolBench
from harness import Bench, Failure, call, eventually, main, program

EXTENSIONS = """[ca]
default_ca = here
[here]
database = {dir}/index
new_certs_dir = {dir}
rand_serial = yes
default_md = sha256
policy = any
x509_extensions = leaf
[any]
organizationName = optional
commonName = supplied
[leaf]
basicConstraints = critical,CA:FALSE
keyUsage = critical,digitalSignature
extendedKeyUsage = serverAuth
subjectAltName = URI:blkferry:server:replica
"""


def issue_dated(b, from_s, to_s):
    """Puts a certificate of the bench's CA in place of the server's: valid from..to seconds from now."""
    work = b.dir / "dated"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    (work / "index").touch()
    (work / "config").write_text(EXTENSIONS.format(dir=work))
    def run(*args):
        subprocess.run(["openssl", *map(str, args)], check=True, capture_output=True)
    def when(seconds):
        return time.strftime("%Y%m%d%H%M%SZ", time.gmtime(time.time() + seconds))
    run("req", "-new", "-key", b.dir / "server-replica.key", "-subj", "/CN=replica", "-out", work / "csr.pem")
    run("ca", "-batch", "-config", work / "config", "-cert", b.dir / "ca" / "ca.pem", "-keyfile", b.dir / "ca" / "ca.key", "-startdate",
        when(from_s), "-enddate", when(to_s), "-in", work / "csr.pem", "-notext", "-out", work / "cert.pem")
    os.replace(work / "cert.pem", b.dir / "server-replica.pem")


def presented(b):
    """The certificate that a new connection is shown."""
    out = subprocess.run(["openssl", "s_client", "-connect", f"127.0.0.1:{b.port}", "-showcerts"], input=b"", capture_output=True,
                         check=False, timeout=30).stdout.decode()
    begin = out.index("-----BEGIN CERTIFICATE-----")
    return out[begin:out.index("-----END CERTIFICATE-----")].strip()


def certificate(b):
    return call(b.server_socket, "status")["certificate"]


class Renewing(EnrolBench):
    """Its server's own certificates live for `own`."""

    def __init__(self, own="30s", **options):
        self.own = own
        super().__init__(**options)

    def write_server(self, listen=None):
        super().write_server(listen)
        path = self.dir / "server.toml"
        path.write_text(path.read_text() + f'server_certificate_life = "{self.own}"\n')


def renewed_without_a_restart():
    with Renewing() as b:
        issue_dated(b, -30, 15)  # two thirds of its life are over already
        b.start_server()
        b.enroll(b.token())
        b.protect()
        session = call(b.server_socket, "status")["sources"][0]["session"]
        first = eventually("the certificate is renewed", lambda: (c := certificate(b))["renewed"] >= 1 and c, 60)
        if not first["renewable"] or first["warning"] or first["failed"] or first["renew_ms"] >= first["not_after_ms"]:
            raise Failure(f"status: {first}")
        shown = presented(b)
        if shown not in (b.dir / "server-replica.pem").read_text() and certificate(b)["renewed"] == first["renewed"]:
            raise Failure("new connections do not get the certificate that is in the file")
        eventually("it is renewed again", lambda: certificate(b)["renewed"] > first["renewed"], 60)
        eventually("new connections get another one", lambda: presented(b) != shown, 30)
        time.sleep(16)  # the first one is over by now: its life, not a guess
        if call(b.server_socket, "status")["sources"][0]["session"] != session:
            raise Failure("the session was lost by the renewals")
        b.agent.stop()
        b.start_agent()
        b.producer.ask("write 0 64 8 3")
        b.settled()
        b.check_equal("with the renewed certificate")
        if b.events().count("server-certificate-renewed") < 2 or "event=certificate_renewed" not in b.server.text():
            raise Failure(f"audit: {b.events()}")
        if (b.dir / "server-replica.key").stat().st_mode & 0o777 != 0o600:
            raise Failure("the key's mode changed")
        left = [p.name for p in b.dir.iterdir() if ".tmp" in p.name]
        if left:
            raise Failure(f"files are left behind: {left}")


def an_expired_one_is_renewed_at_the_start():
    with Renewing(own="365d") as b:
        issue_dated(b, -1000, -10)
        b.start_server()
        eventually("it is renewed", lambda: certificate(b)["renewed"] == 1, 30)
        if not 364 <= certificate(b)["days_left"] <= 365:
            raise Failure(f"status: {certificate(b)}")
        b.enroll(b.token())
        b.protect()


def a_failure_is_told_and_keeps_the_old_one():
    with Renewing(own="365d") as b:
        b.start_server()  # makes the revocation list, for which it needs the key
        b.server.stop()
        issue_dated(b, -200, 100)
        before = (b.dir / "server-replica.pem").read_text()
        key = b.dir / "server-replica.key"
        (b.dir / "ca" / "ca.key").rename(b.dir / "ca.key.away")
        b.start_server()
        told = eventually("the failure is told", lambda: (c := certificate(b))["failed"] >= 2 and c, 60)
        if "ca.key" not in told["warning"] or told["renewed"] or "event=certificate_renewal_failed" not in b.server.text():
            raise Failure(f"status: {told}")
        text = subprocess.run([program("blkferry"), "server", "status", "--socket", str(b.server_socket)], check=True, capture_output=True,
                              text=True).stdout
        if "ALARM: the server's own certificate ends in 0 days" not in text or "could not be renewed" not in text:
            raise Failure(f"blkferry server status: {text}")
        if (b.dir / "server-replica.pem").read_text() != before or presented(b) not in before:
            raise Failure("the old one is not in use")
        (b.dir / "ca.key.away").rename(b.dir / "ca" / "ca.key")
        eventually("it is renewed then", lambda: certificate(b)["renewed"] == 1 and not certificate(b)["warning"], 60)
        if not key.exists():
            raise Failure("the key is gone")


def of_another_ca_it_warns():
    with Bench(disks=1, mib=8) as b:  # no CA on the server
        issue_dated(b, -70 * 86400, 20 * 86400 - 600)
        b.start_server()
        said = certificate(b)
        if said["renewable"] or said["renew_ms"] is not None or "ends in 19 days" not in said["warning"] or said["days_left"] != 19:
            raise Failure(f"status: {json.dumps(said)}")
        if b.server.text().count("event=certificate_ends") != 1:
            raise Failure("the log does not tell, or tells more than once")
        # Replaced by hand and reloaded: all is well.
        issue_dated(b, -10, 300 * 86400 - 600)
        call(b.server_socket, "reload")
        if certificate(b)["warning"] or certificate(b)["days_left"] != 299:
            raise Failure(f"after the reload: {certificate(b)}")


main([renewed_without_a_restart, an_expired_one_is_renewed_at_the_start, a_failure_is_told_and_keeps_the_old_one, of_another_ca_it_warns])
