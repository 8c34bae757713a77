# SPDX-License-Identifier: Apache-2.0
"""A kernel that loads signed modules only: the owner's key comes from the firmware, as a machine's own key does.

The first boot stores a certificate in the firmware's list of allowed signers (UEFI 2.10, 32.4.1: EFI_SIGNATURE_LIST
with EFI_CERT_X509_GUID). The second boots with module.sig_enforce=1.
"""

import base64
import contextlib
import struct
import subprocess
import time
import uuid

from vmtest.chain import Server
from vmtest.paths import VmError
from vmtest.recipes import FILES
from vmtest.spec import Case, Disk, Guest

X509_GUID = uuid.UUID("a5c059a1-94e4-4aa7-87b5-ab155c2bf072")
PKCS7_GUID = uuid.UUID("4aafd29d-68df-49ee-8aa9-347d375665a7")
OWNER_GUID = uuid.UUID("0b6cd1c5-6d0f-4f3c-9a80-2f9a4f6e5b11")
DATABASE = "db-d719b2cb-3d3a-4596-a3bc-dad00e67656f"

ENROL = r"""
modprobe efivarfs
mount -t efivarfs efivarfs /sys/firmware/efi/efivars
# attributes: non-volatile, boot services, run time, authenticated by time
{ printf '\047\000\000\000'; printf '%s' "$BF_LIST" | base64 -d; } >/tmp/db
dd if=/tmp/db of=/sys/firmware/efi/efivars/""" + DATABASE + r""" bs=64k
sync_host enrolled
fail "the power was not cut"
"""

SIGNED = r"""
. /opt/blkferry/chain.sh
expect_equal "signatures" "$(cat /sys/module/module/parameters/sig_enforce)" Y
# What was not signed is not loaded, and the agent says what to do about it.
must_fail insmod /opt/blkferry/blkferry.ko
cp /opt/blkferry/blkferry.ko /tmp/signed.ko
(
	insmod() { :; }
	agent_setup
	blkferry-agent --config /etc/blkferry/agent.toml >/tmp/agent.log 2>&1 &
	agent=$!
	retry 60 grep -q 'mokutil --import' /tmp/agent.log || fail "the agent does not tell of the key: $(cat /tmp/agent.log)"
	kill "$agent" 2>/dev/null || true
	trap - EXIT
)
sign() { # sign KEY CERTIFICATE FILE
	printf '%s' "$1" | base64 -d >/tmp/sign.key
	printf '%s' "$2" | base64 -d >/tmp/sign.pem
	sign-file sha256 /tmp/sign.key /tmp/sign.pem "$3"
}
# Somebody else's key is as good as none.
cp /tmp/signed.ko /tmp/strange.ko
sign "$BF_STRANGER_KEY" "$BF_STRANGER_CERT" /tmp/strange.ko
must_fail insmod /tmp/strange.ko
sign "$BF_OWNER_KEY" "$BF_OWNER_CERT" /tmp/signed.ko
insmod /tmp/signed.ko || fail "the signed module is refused: $(dmesg | grep -i 'x.509\|signature\|platform' | tail -n 8)"
bft attach "$(disk data)" || fail "the signed module does not work"
bft info
report taint "$(cat /proc/sys/kernel/tainted)"
"""


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def key_pair(folder, name: str) -> dict[str, str]:
    """A key and its certificate as files of the folder and as variables for the guest."""
    subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN=module {name}", "-days", "2",
                    "-addext", "keyUsage=digitalSignature", "-keyout", folder / f"{name}.key", "-out", folder / f"{name}.pem"],
                   check=True, capture_output=True)
    return {f"BF_{name.upper()}_KEY": text((folder / f"{name}.key").read_bytes()),
            f"BF_{name.upper()}_CERT": text((folder / f"{name}.pem").read_bytes())}


def signers(folder, name: str) -> bytes:
    """The variable's contents: an authentication header (8.2.2, EFI_VARIABLE_AUTHENTICATION_2) and the list of one certificate.

    Firmware without a platform key (setup mode) wants no signature in the header.
    """
    der = subprocess.run(["openssl", "x509", "-in", folder / f"{name}.pem", "-outform", "DER"], check=True,
                         capture_output=True).stdout
    entry = OWNER_GUID.bytes_le + der
    header = struct.pack("<HBBBBBBIhBB", *time.gmtime()[:6], 0, 0, 0, 0, 0) + struct.pack("<IHH", 24, 0x200, 0xEF1)
    return header + PKCS7_GUID.bytes_le + X509_GUID.bytes_le + struct.pack("<III", 28 + len(entry), 0, len(entry)) + entry


@contextlib.contextmanager
def keys(context):
    """Keys for modules, and a server's address and certificates for an agent that never gets that far."""
    folder = context.directory / "keys"
    folder.mkdir(exist_ok=True)
    with Server(context.directory / "server") as server:
        yield {**server.guest_env(), **key_pair(folder, "owner"), **key_pair(folder, "stranger"),
               "BF_LIST": text(signers(folder, "owner"))}


def host(vm) -> None:
    vm.expect("enrolled")
    vm.power_cut()
    outcome = vm.spawn("signed", Guest(
        script=SIGNED, uefi=True, memory=768, cmdline="module.sig_enforce=1", timeout=240, disks=[Disk("data", "16M")],
        binaries=["openssl", "jq"], network=True,
        files=[*FILES, "cc:tests/kmod/guest/bft", "headers:scripts/sign-file"])).wait()
    if not outcome.passed:
        raise VmError(f"with signatures enforced: {outcome.reason or outcome.status}")


CASE = Case("where signatures are enforced the unsigned module is refused with advice, the one signed by the owner's key works",
            Guest(script=ENROL, uefi=True, memory=768, modules=["efivarfs"], timeout=240), services=keys, host=host,
            kernels=["6.*", "7.*"])  # the signing tool of 5.10 wants an OpenSSL that the host has no more
