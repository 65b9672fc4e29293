"""The passes of a training in less time: no padding outside attention, and merged LoRA. The results differ by rounding."""
