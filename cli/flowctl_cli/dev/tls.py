"""Certificates for `flowctl dev --https`, by an authority of this user's own that is to be trusted once."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from flowctl.errors import ConfigurationError

if TYPE_CHECKING:
    import trustme

LOCAL_NAMES = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True, slots=True)
class Certificate:
    """The files of a server's certificate, and of the authority that vouches for it."""

    certificate: Path
    key: Path
    authority: Path

    @property
    def files(self) -> dict[str, str]:
        """What a server reads, by name."""
        return {"certificate": str(self.certificate), "key": str(self.key)}


def certificate_for(host: str, state: Path) -> Certificate:
    """A certificate for this host and for localhost; raises ConfigurationError when the maker is missing."""
    if importlib.util.find_spec("trustme") is None:
        raise ConfigurationError("--https needs the package trustme: pip install 'flowctl-workflows[dev]'.")
    home = Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "flowctl"
    authority = _authority(home)
    names = [*LOCAL_NAMES, *([host] if host not in (*LOCAL_NAMES, "0.0.0.0", "::") else [])]  # noqa: S104 - compared
    return _issue(authority, names, state, home / "ca.pem")


def _authority(home: Path) -> trustme.CA:
    import trustme  # noqa: PLC0415 - of the extra `dev`

    certificate, key = home / "ca.pem", home / "ca.key"
    if certificate.is_file() and key.is_file():
        return trustme.CA.from_pem(certificate.read_bytes(), key.read_bytes())
    made = trustme.CA(organization_name="flowctl (development)")
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    _write_private(key, made.private_key_pem.bytes())
    certificate.write_bytes(made.cert_pem.bytes())
    return made


def _issue(authority: trustme.CA, names: Sequence[str], state: Path, root: Path) -> Certificate:
    issued = authority.issue_cert(*names)
    files = Certificate(state / "https.pem", state / "https.key", root)
    _write_private(files.key, issued.private_key_pem.bytes())
    files.certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
    return files


def _write_private(file: Path, content: bytes) -> None:
    """For the owner's eyes only, from the first byte on."""
    file.unlink(missing_ok=True)
    with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as out:
        out.write(content)
