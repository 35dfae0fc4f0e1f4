import os

os.environ.setdefault("MPLBACKEND", "agg")
os.environ.setdefault("SDL_VIDEODRIVER", "dummy")

import torch
from hypothesis import settings

torch.set_num_threads(1)  # the tests run in several processes
settings.register_profile("hyperrl", deadline=None, max_examples=50, derandomize=True)
settings.load_profile("hyperrl")
