def should_use_stream():
    return False
