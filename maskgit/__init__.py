"""MaskGIT: masked generative image transformer (Chang et al., CVPR 2022)."""
