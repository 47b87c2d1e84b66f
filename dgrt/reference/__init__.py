"""Readable twins of the native runtime: one file per stage, the same names as in `csrc/runtime`.

Slow on purpose, and right: the oracle of `tests/` and the baseline of `benchmarks/`, which are its only importers.
`noise` and `sampling` need numpy only; the stages need torch and a transformers model.

Reading order: noise, sampling, prefill, denoise_step, refine, commit, generate, causal, hf.
"""
