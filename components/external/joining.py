"""How a machine outside the cluster becomes the workload that an ExternalWorkload says: pure. The object in, the object
as it is to be out, or a named refusal.

All that is remembered stands in the object's status, under `join`: the hash of the token, until when it counts, and the
hash of the key that it was spent on. Whoever writes the status writes it with the resourceVersion that was read, so of
two machines with one token one comes first and the other is refused.
"""

import copy
import datetime
import hashlib
import hmac
import secrets
from collections.abc import Mapping
from typing import Any, Final

Json = dict[str, Any]

MAX_LIFETIME: Final = datetime.timedelta(minutes=15)
"""A token travels by hand or by Ansible, which takes minutes; what is found later, in a file or a log, is worthless."""
TOKEN_BYTES: Final = 32
MAX_TOKEN: Final = 256
CLOCK: Final = "%Y-%m-%dT%H:%M:%SZ"
"""Kubernetes' spelling of a time, in UTC."""


class JoinError(ValueError):
    """The machine may not have this identity; `reason` is a metric label, the message says what to do."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


def new_token() -> str:
    """A token nobody can guess: 256 bits."""
    return secrets.token_urlsafe(TOKEN_BYTES)


def offered(workload: Mapping[str, Any], token: str, now: datetime.datetime, lifetime: datetime.timedelta) -> Json:
    """The object with this token in the place of any other; raises ValueError for a lifetime that is too long.

    A machine that has joined goes on until another one spends the token.
    """
    if not datetime.timedelta(0) < lifetime <= MAX_LIFETIME:
        raise ValueError(f"a join token lives for at most {MAX_LIFETIME.seconds // 60} minutes, not {lifetime}")
    changed = copy.deepcopy(dict(workload))
    join = changed.setdefault("status", {}).setdefault("join", {})
    expires = (now + lifetime).strftime(CLOCK)
    join |= {"tokenSHA256": _hash(token.encode()), "tokenExpires": expires, "tokenUsed": False}
    return changed


def joined(workload: Mapping[str, Any], token: bytes, key: bytes, now: datetime.datetime) -> Json | None:
    """The object once this token was spent on this key (SubjectPublicKeyInfo, DER); raises JoinError.

    None where the same key has spent it already: an answer that was lost on its way may be asked for again.
    """
    where = _where(workload)
    join: Mapping[str, Any] = (workload.get("status") or {}).get("join") or {}
    known = str(join.get("tokenSHA256", ""))
    if not known or len(token) > MAX_TOKEN or not hmac.compare_digest(known, _hash(token)):
        raise JoinError("token_unknown", f"this is not the join token of {where}; make one with `tulle external token`")
    if join.get("tokenUsed"):
        if hmac.compare_digest(str(join.get("keySHA256", "")), _hash(key)) and now < _time(join["tokenExpires"]):
            return None
        raise JoinError("token_used", f"the join token of {where} was used already; make another one")
    if now >= _time(join["tokenExpires"]):
        end = join["tokenExpires"]
        raise JoinError("token_expired", f"the join token of {where} expired at {end}; make another one")
    changed = copy.deepcopy(dict(workload))
    status = changed["status"]
    moment = now.strftime(CLOCK)
    status["join"] |= {"tokenUsed": True, "keySHA256": _hash(key), "joined": moment}
    status["conditions"] = _with_ready(status.get("conditions") or [], moment)
    return changed


def check_renewal(workload: Mapping[str, Any], key: bytes) -> None:
    """Raise JoinError unless this key is the one that joined: a later token, once spent, ends the machine before it."""
    join: Mapping[str, Any] = (workload.get("status") or {}).get("join") or {}
    if not hmac.compare_digest(str(join.get("keySHA256", "")), _hash(key)):
        raise JoinError(
            "key_replaced", f"another machine has joined as {_where(workload)} since; join again with a new token"
        )


def check_name(workload: Mapping[str, Any], dns_name: str) -> None:
    """Raise JoinError unless the object asks for this identity."""
    named = (workload.get("spec") or {}).get("meshTLS", {}).get("serverName", "")
    if named != dns_name:
        raise JoinError("name", f"{_where(workload)} is {named!r} (spec.meshTLS.serverName), not {dns_name!r}")


def _with_ready(conditions: list[Json], moment: str) -> list[Json]:
    ready = {
        "type": "Ready",
        "status": "True",
        "reason": "Joined",
        "message": "the machine has spent its join token",
        "lastTransitionTime": moment,
    }
    return [*(each for each in conditions if each.get("type") != "Ready"), ready]


def _where(workload: Mapping[str, Any]) -> str:
    metadata = workload["metadata"]
    return f"ExternalWorkload {metadata['namespace']}/{metadata['name']}"


def _hash(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _time(text: str) -> datetime.datetime:
    return datetime.datetime.strptime(text, CLOCK).replace(tzinfo=datetime.UTC)
