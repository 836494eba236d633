"""What every test runs under."""

from __future__ import annotations

import torch

# The models here are small: two threads waiting for each other cost more than one alone.
torch.set_num_threads(1)
