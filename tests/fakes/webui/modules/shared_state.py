import time


class State:
    skipped = interrupted = stopping_generation = False
    job, job_no, job_count, sampling_step, sampling_steps = "", 0, 0, 0, 0
    textinfo, time_start = None, None

    def interrupt(self):
        self.interrupted = True

    def stop_generating(self):
        self.stopping_generation = True

    def skip(self):
        self.skipped = True

    def set_current_image(self):
        raise AssertionError("a preview loads the VAE, on the thread of whoever asks for progress")

    def nextjob(self):
        self.job_no += 1
        self.sampling_step = 0

    def begin(self, job="(unknown)"):
        self.sampling_step, self.job_no, self.job_count, self.time_start = 0, 0, -1, time.time()
        self.skipped = self.interrupted = self.stopping_generation = False
        self.textinfo, self.job = None, job

    def end(self):
        self.job, self.job_count = "", 0
