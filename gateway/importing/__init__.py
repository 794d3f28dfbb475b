"""
``tag-gateway import``: files of past or in-store conversions, row by row through the gateway's own pipeline.

::

    file ─ records ─ rows ─ batches ── POST /api/import/{source} ── outcomes ─ totals, report, state
           places     events                                                  written after each batch

Nothing here decides whether an event is good: that is the pipeline's. Nothing here writes a value of the file anywhere.
"""

from gateway.errors import ConfigError


class ImportStopped(ConfigError):
    """The file, the options or the gateway do not let the import go on; the message names the remedy. Exit 2."""
