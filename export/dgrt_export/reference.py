"""The transformers modules in fp32 with tensors read straight from the package: the oracle of the parity gate."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from .checkpoint import DECODER, ENCODER, TensorEntry
from .graphs.target import reference_config
from .quantise import SCALE, dequantise, rounded_rows, stored_shape

_DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "I8": torch.int8, "I4": torch.uint8}


class _QuantisedMatrix(torch.Tensor):
    """Quantised weights: whichever module multiplies with them or a part of them, its input is rounded first."""

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.nn.functional.linear:
            x, weight, *bias = args
            return func(rounded_rows(x), weight.as_subclass(torch.Tensor), *bias)
        return super().__torch_function__(func, types, args, kwargs)


def _stored_tensor(entry: TensorEntry) -> torch.Tensor:
    with entry.file.open("rb") as stream:
        stream.seek(entry.offset)
        content = bytearray(stream.read(entry.num_bytes))
    return torch.frombuffer(content, dtype=_DTYPES[entry.dtype]).view(stored_shape(entry.dtype, entry.shape))


def read_tensors(entries: Mapping[str, TensorEntry]) -> dict[str, torch.Tensor]:
    """Tensors as fp32, quantised ones and their scales as the weights that they mean."""
    tensors = {}
    for name, entry in entries.items():
        if (scale := entries.get(name + SCALE)) is not None:
            weight = dequantise(_stored_tensor(entry), _stored_tensor(scale), entry.dtype, entry.shape)
            tensors[name] = weight.as_subclass(_QuantisedMatrix)
        elif not name.endswith(SCALE) or name.removesuffix(SCALE) not in entries:  # router.scale is a weight
            tensors[name] = _stored_tensor(entry).float()
    return tensors


class Reference:
    """Encoder and decoder of transformers without vision tower and head. Rows are token-major [T, K] outside."""

    def __init__(self, raw: dict[str, Any], tensors: Mapping[str, TensorEntry]):
        """Builds both on the meta device and assigns the same fp32 tensors to both, so weights exist once."""
        from transformers.models.diffusion_gemma import modeling_diffusion_gemma as modeling

        config = reference_config(raw)
        for part in (config, config.text_config):
            part._attn_implementation = "eager"
            part._experts_implementation = "eager"
        with torch.device("meta"):
            encoder = modeling.DiffusionGemmaEncoderTextModel(config.text_config)
            decoder = modeling.DiffusionGemmaDecoderModel(config)
        weights = read_tensors(tensors)
        shared = {name.removeprefix(DECODER): w for name, w in weights.items() if name.startswith(DECODER)}
        own = {name.removeprefix(ENCODER): w for name, w in weights.items() if name.startswith(ENCODER)}
        decoder.load_state_dict(shared, assign=True)
        encoder_names = set(encoder.state_dict())
        encoder.load_state_dict({k: v for k, v in {**shared, **own}.items() if k in encoder_names}, assign=True)
        for model in (encoder, decoder):  # buffers that are computed, not stored
            model.rotary_emb = modeling.DiffusionGemmaTextRotaryEmbedding(config.text_config)
            model.embed_tokens.embed_scale = torch.tensor(model.embed_tokens.scalar_embed_scale)
            model.eval()
        self._encoder, self._decoder, self._config = encoder, decoder, config.text_config
        self._choices: list[list[torch.Tensor]] = [[] for _ in decoder.layers]
        for model in (encoder, decoder):
            for layer, choices in zip(model.layers, self._choices, strict=True):
                layer.router.register_forward_hook(_keeping_choice(choices))

    def take_choices(self) -> list[np.ndarray]:
        """The experts [T, k] that each layer chose for the rows of all passes since the last call."""
        taken = [torch.cat(choices).numpy() for choices in self._choices]
        for choices in self._choices:
            choices.clear()
        return taken

    @torch.no_grad()
    def prefill(
        self, tokens: np.ndarray, chunks: list[int], advance: Callable[[int], None]
    ) -> tuple[list[np.ndarray], np.ndarray]:
        """KV rows of every layer, k.0, v.0, k.1, ..., each [T, K], and the final hidden states [T, D].

        The prompt is fed in `chunks`, a pass each.
        """
        cache = self._cache()
        recorded: list[list[torch.Tensor]] = [[] for _ in range(2 * len(cache.layers))]
        for index, layer in enumerate(cache.layers):
            layer.update = _recording(layer.update, recorded[2 * index], recorded[2 * index + 1])
        done, hidden = 0, []
        for size in chunks:
            out = self._encoder(
                input_ids=torch.from_numpy(tokens[None, done : done + size]), past_key_values=cache,
                position_ids=torch.arange(done, done + size)[None],
            )  # fmt: skip
            hidden.append(out.last_hidden_state[0])
            done += size
            advance(1)
        kv = [torch.cat(states, 2)[0].transpose(0, 1).flatten(1).numpy() for states in recorded]
        return kv, torch.cat(hidden).numpy()

    @torch.no_grad()
    def denoise(self, canvas: np.ndarray, soft: np.ndarray, kv: list[np.ndarray], past: int) -> np.ndarray:
        """Final hidden states [L, D] with the first `past` rows of `kv` committed and `soft` [L, D] as signal."""
        cache = self._cache()
        for index, layer in enumerate(cache.layers):
            head_dim = self._config.per_layer_config[index].head_dim
            states = (
                torch.from_numpy(rows[:past]).unflatten(1, (-1, head_dim)) for rows in kv[2 * index : 2 * index + 2]
            )
            layer.update(*(s.transpose(0, 1)[None].contiguous() for s in states))
        signal = torch.from_numpy(soft)[None]
        hook = self._decoder.self_conditioning.register_forward_pre_hook(lambda _, args: (args[0], signal))
        try:
            out = self._decoder(
                decoder_input_ids=torch.from_numpy(canvas[None]), past_key_values=cache,
                decoder_position_ids=torch.arange(past, past + len(canvas))[None],
            )  # fmt: skip
        finally:
            hook.remove()
        return out.last_hidden_state[0].numpy()

    def _cache(self) -> Any:
        from transformers import DynamicCache

        return DynamicCache(config=self._config)


def _keeping_choice(choices: list[torch.Tensor]) -> Any:
    """A hook that keeps which experts a router chose. It holds the list alone: a cycle would keep the weights alive."""

    def keep(router: Any, args: Any, out: tuple[torch.Tensor, ...]) -> None:
        choices.append(out[2])

    return keep


def _recording(update: Any, keys: list[torch.Tensor], values: list[torch.Tensor]) -> Any:
    """A cache update that also keeps every row: sliding layers of the reference's cache drop old ones."""

    def recorded(key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
        keys.append(key_states)
        values.append(value_states)
        return update(key_states, value_states, *args, **kwargs)

    return recorded
