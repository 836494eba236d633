from random import Random

from lib_trainer.demo.world import draw_random


def world_pictures(count):
    return [draw_random(Random(f"test {number}")).picture for number in range(count)]
