"""Every number that decides what a run is told about itself, in one place.

All of them come from one small model, so that they are hints: `python -m benchmarks learning` measures again how well
they choose. The measures they apply to are defined in `lib_trainer.evaluation.measures`.
"""

from __future__ import annotations

# Early, middle and late: more timesteps change the measures hardly.
TIMESTEPS = (250, 550, 850)
# With strength 0, which is the base, two strengths give the parabola of loss over strength.
FULL, PARTIAL = 1.0, 0.6
# Among these the best strength is chosen.
STRENGTHS = tuple(round(0.4 + 0.05 * place, 2) for place in range(13))

# What a unit of drift costs in J.
DRIFT_WEIGHT = 0.15
# Beyond this drift unrelated prompts come out damaged. Good runs ended at 0.36 at most, those with a rate ten times too
# high or without regularisation pictures at 0.39 at least.
DAMAGED_DRIFT = 0.38
# Beyond this gap between training and held-out pictures, what is drawn varies less.
MEMORISED_GAP = 0.4
# Below this best strength the adapter is over-driven; good runs stand at 0.87 and more.
OVERDRIVEN_STRENGTH = 0.75
# A gain of J below this share of it is not worth steps, and so much of the loss not a weaker strength.
WORTH_SHARE = 0.03
# A run has settled when so many evaluations, and this share of the steps so far, have brought no gain that is worth it.
PATIENCE, PATIENT_SHARE = 2, 0.25
# Then its learning rate falls to zero over this share of the steps so far: what is drawn jumps while the rate is high.
COOL_DOWN_SHARE = 0.25

# Pictures that are measured: held out (one in HELD_OUT_EVERY, none below LEAST_PICTURES), trained on, and unrelated.
LEAST_PICTURES, HELD_OUT_EVERY, MOST_HELD_OUT = 10, 8, 4
TRAINED_PROBES = 2

# Below this Bind the trigger word calls nothing that its class word does not. Runs that learned their face well stood
# at -0.003 to -0.007, a style whose captions never named it at -0.11: zero would doubt every face.
LEAST_BOUND = -0.05
# Less of the loss gone than this is not learned, whatever more steps bring.
LEAST_LEARNED = 0.05
# With too few pictures to hold some out, more of the loss gone than this was likely learned by heart.
MEMORISED_ALONE = 0.45

# Each picture's loss is followed where so many pictures are trained on, and told where a picture was drawn so often
# between two evaluations. A picture is named where what is left of its loss lies so many spreads of all pictures, and
# such a share of the usual, from the usual.
LEAST_FOLLOWED, MOST_FOLLOWED, LEAST_DRAWS = 6, 300, 8
ODD_SPREADS, ODD_SHARE = 3.5, 0.35

# An evaluation may take this share of training's time; a training step takes as long as so many forward passes.
COST_SHARE, FORWARDS_A_STEP = 0.035, 3
