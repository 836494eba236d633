"""Ours beside what else trains LoHa and LoKr, on the same layers, sizes and values; `python -m benchmarks --help`.

Every implementation runs in a process of its own, with its own packages where two cannot share one environment, and the
processes take turns: ours, theirs, ours, theirs. What is reported are medians of the ratios of such pairs with their
quartiles, so that another program on the machine slows both sides down alike.
"""
