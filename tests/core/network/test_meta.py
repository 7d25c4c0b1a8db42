"""Networks on torch's ``meta`` device, which computes shapes and refuses to tell a value.

What a forward does there is what it does on CUDA: a tensor on the wrong device, or a value that the
host waits for, fails; what is copied and how large it is can be written down.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from m3_core.encoder.pipeline import Pipeline, Request, load_pipeline
from m3_core.flagembedding.decoder_model import DecoderProgram, load_decoder
from m3_core.network import transformers_network
from m3_core.network.batches import PackedBatch
from m3_core.network.checkpoint import read_checkpoint
from m3_core.network.loaded import Source
from m3_core.network.tokens import Tokenizer
from m3_core.rerankers import decoder
from m3_core.rerankers.loading import RerankerProgram, load_reranker
from m3_core.rerankers.network import RerankerOptions
from m3_core.testing import tiny_checkpoint, tiny_reranker
