"""
The optional MaxMind database: country and state of an address.

Source: MaxMind DB of the layout of GeoIP2 and GeoLite2 City (``country.iso_code``, ``subdivisions[0].iso_code``), which
other makers follow; a country database tells the country only.
"""

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from gateway import coerce
from gateway.plugins.privacy.place import NOWHERE, Place, place_of

#: An address of a shopper comes several times, then never again.
_REMEMBERED = 8_192


class Reader(Protocol):
    """What is needed of ``maxminddb.Reader``."""

    def get(self, ip_address: str) -> Any:
        """Return the record of an address, None when there is none."""
        ...


class GeoIp:
    """
    Looks addresses up, and remembers the last of them.

    Args:
        reader: An open database.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self.place: Callable[[str], Place] = lru_cache(_REMEMBERED)(self._look_up)

    def _look_up(self, address: str) -> Place:
        try:
            record = coerce.mapping(self._reader.get(address))
        except (ValueError, RuntimeError):  # an address of another family; a damaged record
            return NOWHERE
        country = coerce.mapping(record.get("country")).get("iso_code")
        regions = coerce.sequence(record.get("subdivisions"))
        return place_of(country, coerce.mapping(regions[0]).get("iso_code") if regions else None)


def opened(path: Path) -> GeoIp:
    """
    Open a database.

    Raises:
        ValueError: The package maxminddb is missing, or the file is missing or no such database; says what to do.
    """
    try:
        import maxminddb
    except ImportError as error:
        raise ValueError("[plugins.privacy] geoip needs the package maxminddb: install tag-gateway[geo].") from error
    try:
        return GeoIp(maxminddb.open_database(path))
    except OSError as error:
        raise ValueError(
            f"[plugins.privacy] geoip: {path} cannot be opened ({error.strerror or 'unreadable'}): "
            "put the database there, or correct the path, which is relative to the configuration file."
        ) from error
    except (ValueError, maxminddb.InvalidDatabaseError) as error:
        raise ValueError(f"[plugins.privacy] geoip: {path} is no MaxMind database (.mmdb).") from error
