"""What a machine outside the cluster keeps of its identity between two starts: a file with its key, the request for
that key, and the newest certificate. I/O; asks nobody for anything.

A pod needs none of this: its token is new at every start. A machine has spent its token when it joined, so its leaf is
all that it can renew itself by.
"""

import os
from dataclasses import dataclass

from proxy.control.keypair import KeyGenerationError, KeyPair, parts_from
from proxy.control.messages import Certificate
from proxy.tls.framing import framed


class KeptError(ValueError):
    """There is nothing to start from; the message names the file and the way out."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A key and the certificate of it."""

    pair: KeyPair
    certificate: Certificate


class Machine:
    """The identity of one ExternalWorkload, in one file."""

    def __init__(self, workload: str, path: str) -> None:
        self.workload = workload
        self.path = path

    def read(self) -> Kept:
        """What the last start kept; raises KeptError."""
        try:
            with open(self.path, "rb") as file:
                key, request, moment, *chain = parts_from(file.read())
        except FileNotFoundError:
            raise KeptError(f"{self.path} is not there: join first (python3 -m proxy.joining)") from None
        except (OSError, KeyGenerationError, ValueError) as error:
            raise KeptError(f"{self.path} cannot be used ({error}): join again with a new token") from None
        if not chain:
            raise KeptError(f"{self.path} holds no certificate: join again with a new token")
        return Kept(KeyPair(key, request), Certificate(tuple(chain), int.from_bytes(moment, "big")))

    def keep(self, pair: KeyPair, certificate: Certificate) -> None:
        """Replace what is kept, whole or not at all, readable by this user alone; raises OSError."""
        moment = certificate.valid_until.to_bytes(8, "big")
        temporary = f"{self.path}.new"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(framed(pair.key, pair.request, moment, *certificate.chain))
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, self.path)
