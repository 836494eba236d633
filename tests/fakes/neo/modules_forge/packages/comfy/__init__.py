"""By this package Neo is told from Forge."""
