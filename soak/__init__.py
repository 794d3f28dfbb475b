"""
``make soak``: a gateway under kills, faults and load for half an hour, every event accounted for, and a report of it.

:mod:`traffic` says what is sent and what must arrive; :mod:`clients` sends it, :mod:`vendor` receives it;
:mod:`account` knows by number what became of each. :mod:`weather` plays the vendor's faults, :mod:`nuisance` the
clients', :mod:`operator` what an operator does. :mod:`kills`, :mod:`steady`, :mod:`controls` and :mod:`fuzzing` are the
phases; :mod:`bounds` judges, :mod:`report` writes, :mod:`limits` says what none of this shows.
"""
