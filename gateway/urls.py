"""Personal data in URLs: removed before a URL is kept or sent."""

import re
from functools import lru_cache
from urllib.parse import unquote_plus, urlsplit, urlunsplit

#: Query parameters that carry a person or a credential, compared without case, "-" and "_".
_PERSONAL = frozenset(
    [
        "email",
        "mail",
        "emailaddress",
        "useremail",
        "customeremail",
        "em",
        "phone",
        "phonenumber",
        "tel",
        "telephone",
        "mobile",
        "ph",
        "firstname",
        "lastname",
        "fname",
        "lname",
        "fullname",
        "surname",
        "username",
        "user",
        "login",
        "name",
        "address",
        "address1",
        "address2",
        "street",
        "zip",
        "zipcode",
        "postcode",
        "postalcode",
        "birthdate",
        "birthday",
        "dob",
        "token",
        "accesstoken",
        "idtoken",
        "refreshtoken",
        "authtoken",
        "auth",
        "key",
        "apikey",
        "secret",
        "clientsecret",
        "password",
        "passwd",
        "pwd",
        "pass",
        "sig",
        "signature",
        "session",
        "sessionid",
        "sid",
        "otp",
        "code",
        "ssn",
    ]
)
_EMAIL = re.compile(r"[^\s@/?&=,;:]{1,64}@[^\s@/?&=,;:]{1,190}\.[^\s@/?&=,;:.]{2,}")
#: An international number: "+" and eight digits or more. A "+" in a query stands for a space or, sent carelessly, for
#: itself.
_PHONE = re.compile(r"(?:\+|%2[Bb])\d(?:[\s().+-]?\d){7,}")


def is_email_like(text: str) -> bool:
    """Whether the text holds something that looks like an e-mail address, plain or percent-encoded."""
    if "@" not in text and "%40" not in text:
        return False
    return _EMAIL.search(text if "@" in text else unquote_plus(text)) is not None


def is_personal(text: str) -> bool:
    """Whether a free text holds an e-mail address or an international phone number."""
    if "+" in text or "%2" in text:
        return _PHONE.search(text) is not None or is_email_like(text)
    return is_email_like(text)


def strip_personal(url: str) -> str:
    """
    Remove user info, the fragment, query parameters with personal names or values, and addresses and numbers in the
    path.

    The click id parameter ``epik`` and campaign parameters stay; a URL that cannot be read loses its query.
    """
    base, hash_sign, _ = url.partition("#")
    base, mark, query = base.partition("?")
    if "@" in base or "+" in base or "%" in base:
        base = _without_person(base)
    if not mark:
        return base if hash_sign or base != url else url
    kept = "&".join([pair for pair in query.split("&") if pair and not _is_personal(pair)])
    return f"{base}?{kept}" if kept else base


def _without_person(base: str) -> str:
    """Remove user info and path segments that look like an e-mail address; a URL that cannot be read keeps nothing."""
    try:
        parts = urlsplit(base)
        host = parts.netloc.rpartition("@")[2]
    except ValueError:
        return ""
    path = "/".join("-" if is_personal(segment) else segment for segment in parts.path.split("/"))
    return urlunsplit((parts.scheme, host, path, "", ""))


def _is_personal(pair: str) -> bool:
    name, _, value = pair.partition("=")
    if _is_personal_name(name):
        return True
    return name.lower() != "epik" and is_personal(value)


@lru_cache(4_096)
def _is_personal_name(name: str) -> bool:
    plain = unquote_plus(name).lower()
    # of user[password] and user.password the last part counts by itself too
    last = re.split(r"[\[.]", plain.rstrip("]."))[-1]
    return any(re.sub(r"[-_\[\].]", "", one) in _PERSONAL for one in (plain, last))
