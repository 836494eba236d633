"""Where the model comes from: the WebUI that runs us, or our own standalone host."""
