"""Runs in the background: a queue, the state of each run for whoever watches, and the record that outlives them."""
