"""Stage 2, readable twin of `csrc/runtime/prefill.cc`: a causal pass of the prompt that writes KV.

The oracle is transformers' encoder; the cache is its `DynamicCache`, whose sliding layers keep W - 1 tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray


@torch.no_grad()
def prefill(model: Any, tokens: Sequence[int], cache: Any = None) -> Any:
    """Runs tokens through the encoder and returns the cache that holds their keys and values.

    Args:
        model: A `DiffusionGemmaForBlockDiffusion` in eval mode.
        tokens: Ids, at the positions right after what `cache` holds.
        cache: A cache to append to; None starts one.

    Example:
        >>> prefill(model, [2, 105]).get_seq_length()               # doctest: +SKIP
        2
    """
    return causal_pass(model, tokens, cache)[0]


@torch.no_grad()
def causal_pass(model: Any, tokens: Sequence[int], cache: Any = None) -> tuple[Any, NDArray[np.float32]]:
    """Returns the cache, and the final hidden states [S, D] that predict the token behind each of `tokens`.

    Example:
        >>> causal_pass(model, [2, 105])[1].shape                   # doctest: +SKIP
        (2, 128)
    """
    from transformers.cache_utils import DynamicCache

    if cache is None:
        cache = DynamicCache(config=model.config.get_text_config(decoder=True))
    ids = torch.as_tensor([list(tokens)], dtype=torch.long)
    first = cache.get_seq_length()
    positions = torch.arange(first, first + ids.shape[1])[None]
    masks = model.model.encoder.create_masks_for_generate(
        config=model.config,
        inputs_embeds=torch.empty((*ids.shape, 0), dtype=model.dtype),
        attention_mask=torch.ones((1, first + ids.shape[1]), dtype=torch.bool),
        past_key_values=cache,
        position_ids=positions,
    )
    out = model.model.encoder(input_ids=ids, attention_mask=masks, past_key_values=cache, position_ids=positions)
    return cache, out.last_hidden_state[0].float().numpy()
