"""
Canaries: made-up people whose every detail is a word that exists nowhere else, and a search for it in bytes.

Each field gets a word of its own, so that a find names the field that leaked.
"""

import base64
import hashlib


class Canary:
    """Makes details and remembers them; :meth:`find` looks for them in every usual writing."""

    def __init__(self) -> None:
        self._details: dict[str, tuple[str, bytes]] = {}

    def word(self, label: str) -> str:
        """Return a name, a street, a remark."""
        digest = hashlib.sha256(label.encode()).hexdigest()[:11]
        word = "Zq" + "".join(chr(ord("a") + int(digit, 16)) for digit in digest)
        self._details[word.lower()] = (label, word.encode())
        return word

    def mail(self, label: str) -> str:
        """Return an e-mail address."""
        return f"{self.word(label).lower()}@mail.example"

    def phone(self, label: str) -> str:
        """Return a phone number in international form."""
        digits = f"{int(hashlib.sha256(label.encode()).hexdigest()[:12], 16) % 10_000_000:07}"
        self._details[f"151{digits}"] = (label, f"151{digits}".encode())
        return f"+49151{digits}"

    def find(self, where: str, content: bytes) -> list[str]:
        """Return one line for each detail that stands in the content, in any case, or as base64 at any offset."""
        folded = content.lower()
        found = []
        for needle, (label, raw) in self._details.items():
            if needle.encode() in folded:
                found.append(f"{where}: {label}")
            elif any(form in content for form in _base64_forms(raw) | _base64_forms(raw.lower())):
                found.append(f"{where}: {label} (base64)")
        return found


def _base64_forms(raw: bytes) -> set[bytes]:
    """Return the characters that base64 of these bytes has in every text, wherever they stand in it."""
    forms = set()
    for offset in range(3):
        encoded = base64.b64encode(b"\0" * offset + raw).rstrip(b"=")
        # the first and last characters depend on the neighbours
        inner = encoded[(offset * 8 + 5) // 6 : len(encoded) - 1]
        forms |= {inner, inner.replace(b"+", b"-").replace(b"/", b"_")}
    return forms
