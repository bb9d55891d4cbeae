"""One thread, so that tests are quick beside a training run and the same on every machine."""

import torch

torch.set_num_threads(1)
