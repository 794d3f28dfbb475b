"""
The operator's pages, rendered here and served on the operator's listener.

A page is a module with ``routes(pages) -> list[Route]``, a template, and its place in :data:`NAVIGATION`.
"""

from gateway.operator.pages.framework import NAVIGATION, Pages, page_routes

__all__ = ["NAVIGATION", "Pages", "page_routes"]
