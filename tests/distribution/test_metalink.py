"""Metalink documents, read by an XML parser."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from backend.distribution.metalink import metalink

SPACE = "{urn:ietf:params:xml:ns:metalink}"


def test_a_document_says_what_it_was_given() -> None:
    pieces = [bytes([number]) * 32 for number in range(3)]
    urls = ["http://[fd00::1]:8/t/a?b=1&c=<2>", "http://h/\"'"]
    text = metalink('a "b" & <c>', 25, "ab" * 32, 10, pieces, urls)
    (file,) = ElementTree.fromstring(text.encode())
    assert file.tag == f"{SPACE}file" and file.get("name") == 'a "b" & <c>'
    assert file.findtext(f"{SPACE}size") == "25"
    whole, parts = file.find(f"{SPACE}hash"), file.find(f"{SPACE}pieces")
    assert whole is not None and whole.get("type") == "sha-256" and whole.text == "ab" * 32
    assert parts is not None and parts.attrib == {"type": "sha-256", "length": "10"}
    assert [bytes.fromhex(str(part.text)) for part in parts] == pieces
    assert [(url.get("priority"), url.text) for url in file.findall(f"{SPACE}url")] == [("1", urls[0]), ("2", urls[1])]


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "/x", "a/b", "a\nb", "a\0b"])
def test_a_name_is_no_path(name: str) -> None:
    with pytest.raises(ValueError):
        metalink(name, 10, "ab" * 32, 10, [b"a" * 32], [])


@pytest.mark.parametrize(("size", "step", "count"), [(10, 10, 2), (11, 10, 1), (10, 0, 1), (0, 10, 1)])
def test_pieces_make_up_the_size(size: int, step: int, count: int) -> None:
    with pytest.raises(ValueError):
        metalink("x", size, "ab" * 32, step, [b"a" * 32] * count, [])


def test_an_empty_file_has_no_pieces() -> None:
    assert "pieces" not in metalink("x", 0, "ab" * 32, 10, [], ["http://h/"])
