"""From Relax to scheduled kernels: operators made loops, fused, tiled by rule or by record."""
