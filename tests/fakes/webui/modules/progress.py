from collections import OrderedDict

pending_tasks = OrderedDict()
finished_tasks = []


def add_task_to_queue(id_job):
    pending_tasks[id_job] = 0.0


def start_task(id_task):
    pending_tasks.pop(id_task, None)


def finish_task(id_task):
    finished_tasks.append(id_task)
