"""
The built-in plugins: they load through the same entry points as a stranger's, and import only what ``gateway`` exports.
"""
