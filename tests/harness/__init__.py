"""
What whole-gateway tests share.

* :mod:`processes`: gateway and sandbox as real processes. :mod:`load`: clients that note what was answered for each id.
* :mod:`oracle`: conservation by id. :mod:`launcher`: the gateway with a planted fault, or with short waits.
* :mod:`inprocess`: a gateway inside the test, and a wire that records every call.
* :mod:`conformance`: the vendor's schema.
* :mod:`expectation`: compares events with a worked example. :mod:`canary`: looks for personal data in bytes.
"""
