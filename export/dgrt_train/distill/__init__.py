"""Distils a block drafter from a target: `dgrt distill ENGINE --data prompts.jsonl -o DRAFTER`.

In reading order: `prompts.py` (the data), `collect.py` (what the target writes, and what a drafter sees of it),
`network.py` (the drafter), `blocks.py` (training examples), `train.py` (the loop), `report.py` (held-out figures),
`publish.py` (the drafter folder), `run.py` (all of it, from beginning to end).
"""
