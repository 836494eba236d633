import threading
from functools import wraps

from modules import shared

queue_lock = threading.Lock()


def wrap_gradio_call(func, extra_outputs=None, add_stats=False):
    @wraps(func)
    def f(*args, **kwargs):
        try:
            return tuple(func(*args, **kwargs))
        finally:
            # Whoever else is at work loses its flags and its place on the progress bar.
            shared.state.skipped = shared.state.interrupted = shared.state.stopping_generation = False
            shared.state.job, shared.state.job_count = "", 0

    return f
