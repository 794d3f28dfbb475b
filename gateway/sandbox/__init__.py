"""Local stand-ins of the vendors, after their published descriptions, for the demo, tests and benchmarks."""

from gateway.sandbox.faults import Fault, Faults
from gateway.sandbox.pinterest import PinterestSandbox, SandboxConfig
from gateway.sandbox.record import Counts, Record

__all__ = ["Counts", "Fault", "Faults", "PinterestSandbox", "Record", "SandboxConfig"]
