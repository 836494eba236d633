"""A small stand-in for Forge's backend: the same names, signatures and pitfalls, with tiny models."""
