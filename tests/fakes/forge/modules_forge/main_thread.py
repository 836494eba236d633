"""The one thread that generates. What its jobs raise, it prints and forgets."""

import threading
import time
import traceback

lock = threading.Lock()
waiting_list = []
finished_list = []
stopped = threading.Event()


class Task:
    def __init__(self, func, args, kwargs):
        self.func, self.args, self.kwargs = func, args, kwargs
        self.result = None

    def work(self):
        try:
            self.result = self.func(*self.args, **self.kwargs)
        except Exception:  # noqa: BLE001
            traceback.print_exc()


def loop():
    while not stopped.is_set():
        time.sleep(0.001)
        if waiting_list:
            with lock:
                task = waiting_list.pop(0)
            task.work()
            with lock:
                finished_list.append(task)


def run_and_wait_result(func, *args, **kwargs):
    task = Task(func, args, kwargs)
    with lock:
        waiting_list.append(task)
    while task not in finished_list:
        time.sleep(0.001)
    with lock:
        finished_list.remove(task)
    return task.result
