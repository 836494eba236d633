"""The one thread that generates. What its jobs raise, it prints and forgets."""

import threading
import time
import traceback

lock = threading.Lock()
last_id = 0
waiting_list = []
finished_list = []
last_exception = None
stopped = threading.Event()


class Task:
    def __init__(self, task_id, func, args, kwargs):
        self.task_id, self.func, self.args, self.kwargs = task_id, func, args, kwargs
        self.result = None

    def work(self):
        global last_exception
        try:
            self.result = self.func(*self.args, **self.kwargs)
        except Exception as error:  # noqa: BLE001
            traceback.print_exc()
            last_exception = error


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
    global last_id
    with lock:
        last_id += 1
        task = Task(last_id, func, args, kwargs)
        waiting_list.append(task)
    while task not in finished_list:
        time.sleep(0.001)
    with lock:
        finished_list.remove(task)
    return task.result
