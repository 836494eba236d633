"""`caption`: captions by a tagger's ONNX file."""

from __future__ import annotations

import argparse
from pathlib import Path

from tqdm import tqdm

from lib_trainer.captioning.captioner import Captioned, CaptionPlan, caption_pictures
from lib_trainer.captioning.onnx_tagger import ENDING, OnnxTagger, find_taggers
from lib_trainer.cli.output import Answer, say
from lib_trainer.config.recipe import Recipe
from lib_trainer.dataset.captions import caption_endings
from lib_trainer.dataset.images import shown_name
from lib_trainer.dataset.scan import scan_folder
from lib_trainer.errors import UserError


def run_caption(options: argparse.Namespace) -> Answer:
    """Captions the pictures that lack one, or all. Ctrl-C ends it after the picture under way."""
    config = Recipe().with_values({"train_data_dir": options.folder}).dataset
    scan = scan_folder(config)
    plan = CaptionPlan(options.prefix, options.postfix, options.exclude, not options.all, options.threshold)
    tagger = OnnxTagger(_tagger_file(options), underscores=options.underscores)
    images = [sample.image for sample in scan.samples]
    made: list[Captioned] = []
    stopped = False
    with tqdm(total=len(images), unit="picture", disable=None, leave=False) as bar:
        try:
            for done in caption_pictures(images, caption_endings(config), tagger, plan):
                made.append(done)
                bar.update()
                if done.problem:
                    say(f"{shown_name(done.image)}: {done.problem}")
        except KeyboardInterrupt:
            stopped = True
    written = {done.image.name: done.text for done in made if done.text}
    values = {"captioned": written, "pictures": len(images), "stopped_early": stopped}
    return Answer(values, (f"{len(written)} of {len(images)} pictures captioned by {tagger.label}.",))


def _tagger_file(options: argparse.Namespace) -> Path:
    if options.tagger:
        return options.tagger
    place = options.out / "models"
    found = find_taggers([place])
    if not found:
        raise UserError(
            f"There is no tagger in {place}.",
            f"Put its {ENDING} file there with its list of tags (.csv) beside it, or name it with --tagger.",
        )
    return found[0]
