"""Torrents and certificates as they are made."""

from __future__ import annotations

import os
from pathlib import Path

import libtorrent as lt
import pytest
from cryptography import x509
from cryptography.exceptions import InvalidSignature

from backend.distribution.torrent.make import make_torrent, piece_size, torrent_name
from backend.distribution.torrent.tls import Authority

SHA = "ab" * 32


async def test_a_torrent_is_version_2_private_and_names_no_tracker_and_no_path(tmp_path: Path) -> None:
    path = tmp_path / "secret name.pth"
    path.write_bytes(os.urandom(1_000_000))
    made = await make_torrent(path, SHA)
    torrent = lt.bdecode(made.data)
    assert set(torrent) == {b"info", b"piece layers"}
    info = torrent[b"info"]
    assert set(info) == {b"file tree", b"meta version", b"name", b"piece length", b"private"}
    assert (info[b"meta version"], info[b"private"], info[b"name"]) == (2, 1, torrent_name(SHA).encode())
    assert b"secret" not in made.data
    assert (made.size, made.piece, made.pieces) == (1_000_000, 32768, 31)
    assert lt.load_torrent_buffer(made.data).ti.is_valid()


async def test_the_hashes_are_those_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(bytes(500_000))
    first = await make_torrent(path, SHA)
    assert (await make_torrent(path, SHA)).data == first.data
    path.write_bytes(bytes(499_999) + b"x")
    assert (await make_torrent(path, SHA)).data != first.data


@pytest.mark.parametrize(
    ("size", "piece"),
    [(1, 32 << 10), (64_000_000, 64 << 10), (128_000_000, 128 << 10), (10**9, 1 << 20), (40 * 10**9, 8 << 20)],
)
def test_pieces_are_about_a_thousand_a_file(size: int, piece: int) -> None:
    assert piece_size(size) == piece


async def test_a_certificate_is_of_the_authority_and_made_out_to_the_torrent(tmp_path: Path) -> None:
    authority, other = Authority(), Authority()
    identity = authority.issue("x.bin")
    leaf = x509.load_pem_x509_certificate(identity.certificate.encode())
    ca = x509.load_pem_x509_certificate(authority.pem.encode())
    leaf.verify_directly_issued_by(ca)
    with pytest.raises(InvalidSignature):
        leaf.verify_directly_issued_by(x509.load_pem_x509_certificate(other.pem.encode()))
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["x.bin"]
    assert "PRIVATE" not in repr(identity)
    path = tmp_path / "a.bin"
    path.write_bytes(bytes(100_000))
    torrent = lt.bdecode((await make_torrent(path, SHA, authority=authority.pem)).data)
    assert torrent[b"info"][b"ssl-cert"].decode() == authority.pem
