import pytest

from lib_trainer.demo.build.tokenizer import CONTEXT_TOKENS, common_words, open_tokenizer, write_tokenizer
from lib_trainer.demo.subjects import SHAPES, THINGS
from lib_trainer.demo.world import COLOURS
from lib_trainer.host.standalone.host import WEIGHTS


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tokenizer")
    write_tokenizer(folder, ["cat", "person", "style", "on", "son"])
    return open_tokenizer(folder)


def test_a_known_word_is_one_token(tokenizer):
    assert tokenizer.tokenize("person on son") == ["person</w>", "on</w>", "son</w>"]


def test_a_trigger_word_falls_into_pieces(tokenizer):
    assert tokenizer.tokenize("jeff_person") == ["j", "e", "f", "f</w>", "_</w>", "person</w>"]
    assert tokenizer.tokenize("style_name") == ["style</w>", "_</w>", "n", "a", "m", "e</w>"]


def test_every_text_can_be_written(tokenizer):
    numbers = tokenizer("Zoë, 12 猫!")["input_ids"]
    assert numbers[0] == tokenizer.bos_token_id and numbers[-1] == tokenizer.eos_token_id
    assert tokenizer.eos_token_id not in numbers[1:-1]


def test_a_caption_fills_the_context(tokenizer):
    numbers = tokenizer("a cat", padding="max_length", truncation=True, max_length=CONTEXT_TOKENS)["input_ids"]
    assert len(numbers) == 77 and numbers[-1] == tokenizer.eos_token_id


def test_made_up_names_are_no_words():
    assert common_words(["a cat"] * 30 + ["a qwx"]) == ["a", "cat"]


def test_the_embedded_tokenizer_knows_the_world():
    embedded = open_tokenizer(WEIGHTS / "tokenizer")
    others = ("person", "portrait", "superhero", "looking", "camera", "style", "painted")
    for word in (*COLOURS, *SHAPES, *THINGS, *others):
        assert embedded.tokenize(word) == [f"{word}</w>"]
    assert len(embedded.tokenize("jeff_person")) > 3
