"""
What whole-gateway tests share.

* :mod:`processes`: gateway and sandbox as real processes. :mod:`load`: clients that note what was answered for each id.
* :mod:`mix`: every kind of event, a pure function of its id. :mod:`mixed`: the mix on a gateway inside the test.
* :mod:`oracle`: conservation by id. :mod:`launcher`: the gateway with a planted fault, or with short waits.
* :mod:`failpoints`: ends and failures at each boundary of the store. :mod:`zygote`: gateways that start by a fork.
* :mod:`stranger`: a plugin that goes wrong in every way.
* :mod:`inprocess`: a gateway inside the test, and a wire that records every call.
* :mod:`conformance`: the vendor's schema.
* :mod:`expectation`: compares events with a worked example. :mod:`canary`: looks for personal data in bytes.
"""
