class Hijack:
    fixes = None

    def __init__(self):
        self.clear_comments()

    def clear_comments(self):
        self.comments, self.extra_generation_params = [], {}


model_hijack = Hijack()
