"""Who may take part in one transfer: an authority of its own, and a certificate for each peer.

The authority's key and those of the peers live in memory only. A peer's reaches it on the standard input of its
program, over the connection that is encrypted and checked already; it is never written to a disk, an argument or a log.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.x509 import Certificate

VALID = timedelta(hours=25)
CLOCKS = timedelta(hours=12)
"""How far a host's clock may be behind ours: a certificate is valid from that long ago."""

# The group ffdhe2048 of RFC 7919, appendix A.1: public. libtorrent wants one, though TLS 1.3 makes no use of it.
FFDHE2048 = """\
-----BEGIN DH PARAMETERS-----
MIIBCAKCAQEA//////////+t+FRYortKmq/cViAnPTzx2LnFg84tNpWp4TZBFGQz
+8yTnc4kmz75fS/jY2MMddj2gbICrsRhetPfHtXV/WVhJDP1H18GbtCFY2VVPe0a
87VXE15/V8k1mE8McODmi3fipona8+/och3xWKE2rec1MKzKT0g6eXq8CrGCsyT7
YdEIqUuyyOP7uWrat2DX9GgdT0Kj3jlN9K5W7edjcrsZCwenyO4KbXCeAvzhzffi
7MA0BM0oNC9hkXL+nOmFg/+OTxIy7vKBg8P+OxtMb61zO7X8vC7CIAXFjvGDfRaD
ssbzSibBsu/6iGtCOGEoXJf//////////wIBAg==
-----END DH PARAMETERS-----
"""


@dataclass(frozen=True, slots=True)
class Identity:
    """What a peer shows and what it proves it with, as PEM; never printed."""

    certificate: str = field(repr=False)
    key: str = field(repr=False)
    parameters: str = field(repr=False)

    def order(self) -> dict[str, str]:
        """As :mod:`backend.distribution.torrent.peer` takes it."""
        return {"cert": self.certificate, "key": self.key, "dh": self.parameters}


class Authority:
    """The certificate authority of one transfer; its key goes with this object."""

    def __init__(self) -> None:
        from cryptography.hazmat.primitives.asymmetric import ec

        self._key = ec.generate_private_key(ec.SECP256R1())
        self._certificate = _certificate("ringrift transfer", self._key, None)

    @property
    def pem(self) -> str:
        from cryptography.hazmat.primitives.serialization import Encoding

        return self._certificate.public_bytes(Encoding.PEM).decode()

    def issue(self, name: str) -> Identity:
        """A certificate for one peer.

        Args:
            name: of the torrent: libtorrent compares it with the certificate's DNS name, byte for byte.
        """
        from cryptography.hazmat.primitives.asymmetric import ec
        from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _certificate(name, key, (self._certificate, self._key))
        private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        return Identity(certificate.public_bytes(Encoding.PEM).decode(), private, FFDHE2048)


def _certificate(
    name: str, key: EllipticCurvePrivateKey, issuer: tuple[Certificate, EllipticCurvePrivateKey] | None
) -> Certificate:
    from cryptography import x509
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.x509.oid import NameOID

    now = datetime.now(UTC)
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    by, signer = (issuer[0].subject, issuer[1]) if issuer else (subject, key)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(by)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCKS)
        .not_valid_after(now + VALID)
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=0 if issuer is None else None), True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), False)
    )
    if issuer is not None:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), False)
    return builder.sign(signer, SHA256())
