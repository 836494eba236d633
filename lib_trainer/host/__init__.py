"""Where the model comes from: the WebUI that runs us, or our own standalone host.

A host opens its checkpoint (`open_model`), lets us train on it, and has everything restored when the model is closed.
`base` says what training asks of a host; each program has a package of its own.
"""
