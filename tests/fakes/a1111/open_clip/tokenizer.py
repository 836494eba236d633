from tests.fakes.tiny_clip import CLIPTokenizer


class SimpleTokenizer:
    def __init__(self):
        self.words = CLIPTokenizer()
        # The end has the highest number: that is how its place is found.
        self.encoder = {**self.words.get_vocab(), "<start_of_text>": 254, "<end_of_text>": 255}

    def encode(self, text):
        return self.words([text])["input_ids"][0]


_tokenizer = SimpleTokenizer()
