"""The commands behind ``tag-gateway``, one module each."""
