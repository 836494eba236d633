stream_activated = False


def should_use_stream():
    return stream_activated
