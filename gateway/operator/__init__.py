"""
The operator's app: metrics, status, dead letters, erasure, backup, explain.

One app, served twice: on the operator's TCP listener behind a password, and on the Unix socket beside the store (mode
600) for the commands. Commands without a running server use it in process.
"""

from gateway.operator.api import operator_app

__all__ = ["operator_app"]
