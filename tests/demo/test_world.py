from random import Random

from lib_trainer.demo.world import draw_random


def test_same_seed_draws_the_same_picture_and_caption():
    first, second = draw_random(Random(3)), draw_random(Random(3))
    assert first.caption == second.caption
    assert first.picture.tobytes() == second.picture.tobytes()


def test_pictures_are_square_of_the_asked_size():
    assert draw_random(Random(1)).picture.size == (64, 64)
    assert draw_random(Random(1), 128).picture.size == (128, 128)


def test_captions_name_the_background_that_was_drawn():
    for seed in range(200):
        drawing = draw_random(Random(seed))
        if drawing.caption.endswith(" on a red background"):
            red, green, blue = drawing.picture.getpixel((0, 0))
            assert red > 190 and green < 70 and blue < 70
            return
    raise AssertionError("no plain red background among 200 pictures")


def test_articles_fit_the_word_that_follows():
    captions = [draw_random(Random(seed)).caption for seed in range(300)]
    assert any(caption.startswith("an ") for caption in captions)
    assert not any("a orange" in caption for caption in captions)
