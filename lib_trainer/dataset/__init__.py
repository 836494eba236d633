"""From a folder of pictures to the batches of a run.

scan → `Scan` of `Sample`s · buckets → the size each trains at · sampler → what a run draws, from its seed
· images, augment → pixels · cache → `LatentStore` and `TextStore`: everything that will be drawn, encoded
beforehand · collate → `Batch`.
"""
