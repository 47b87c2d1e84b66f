"""The graphs as torch modules around the target's own submodules, ready for torch.export."""
