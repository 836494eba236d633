import threading
from functools import wraps

from modules import progress, shared

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


def wrap_gradio_gpu_call(func, extra_outputs=None):
    @wraps(func)
    def f(id_task, *args, **kwargs):
        progress.add_task_to_queue(id_task)
        with queue_lock:
            shared.state.begin(job=id_task)
            progress.start_task(id_task)
            try:
                return func(id_task, *args, **kwargs)
            finally:
                progress.finish_task(id_task)
                shared.state.end()

    return wrap_gradio_call(f, extra_outputs)
