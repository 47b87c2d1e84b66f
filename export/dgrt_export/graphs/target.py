"""The target's text modules as transformers builds them, on the meta device: shapes and names, no weights.

The tree is cut down to what the graphs read, and its parameter names are exactly the checkpoint's tensor names. All
encoder weights are the decoder's; only `layer_scalar` exists on both sides.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from ..errors import InvalidCheckpoint, Unsupported, mismatch


def reference_config(raw: dict[str, Any]) -> Any:
    """transformers' own reading of config.json, so that a mistake in ours cannot agree with itself."""
    try:
        from transformers import DiffusionGemmaConfig
    except ImportError:
        import transformers

        expected = "a version with DiffusionGemma (5.11 or newer)"
        raise Unsupported(mismatch("transformers", expected, transformers.__version__)) from None
    try:
        text_only = copy.deepcopy(raw)
        text_only.pop("vision_config", None)  # not traced; newer vision towers must not stop a text export
        return DiffusionGemmaConfig.from_dict(text_only)
    except Exception as error:  # the library raises a dozen kinds of validation errors
        found = " ".join(str(error).split())[:300]
        raise InvalidCheckpoint(mismatch("config.json", "a config transformers accepts", found)) from None


class _Branch(nn.Module):
    """A node of the module tree that only carries names."""

    def __init__(self, **children: nn.Module):
        super().__init__()
        for name, child in children.items():
            self.add_module(name, child)


class _EncoderLayer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer_scalar = nn.Buffer(torch.empty(1))


def build_target(reference: Any) -> nn.Module:
    """`model.decoder...` and `model.encoder.language_model.layers.N.layer_scalar` on the meta device."""
    from transformers.models.diffusion_gemma.modeling_diffusion_gemma import DiffusionGemmaDecoderModel

    with torch.device("meta"):
        decoder = DiffusionGemmaDecoderModel(reference).eval()
        encoder = _Branch(layers=nn.ModuleList(_EncoderLayer() for _ in decoder.layers))
    return _Branch(model=_Branch(decoder=decoder, encoder=_Branch(language_model=encoder)))
