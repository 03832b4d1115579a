"""ResNets that detectors support (He et al. 2016, arXiv:1512.03385, Table 1), with torchvision's names."""

BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
ARCHITECTURES = {f"resnet{depth}": depth for depth in BLOCKS}


def expected_shapes(depth: int, norm: str) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor that a detector takes from a ResNet, by torchvision name.

    With BN, ResNet-18, 34, 50, 101 and 152 have 100, 180, 265, 520 and 775 tensors.
    """
    shapes: dict[str, tuple[int, ...]] = {}

    def add(conv: str, bn: str, out: int, into: int, kernel: int) -> None:
        shapes[f"{conv}.weight"] = (out, into, kernel, kernel)
        affine = ("weight", "bias")
        for name in affine if norm == "GN" else (*affine, "running_mean", "running_var"):
            shapes[f"{bn}.{name}"] = (out,)

    add("conv1", "bn1", 64, 3, 7)
    into = 64
    for stage, blocks in enumerate(BLOCKS[depth], start=1):
        width = 64 * 2 ** (stage - 1)
        convs, out = (
            ([(width, 3), (width, 3)], width) if depth < 50 else ([(width, 1), (width, 3), (4 * width, 1)], 4 * width)
        )
        for block in range(blocks):
            prefix, channels = f"layer{stage}.{block}", into
            for number, (channels_out, kernel) in enumerate(convs, start=1):
                add(f"{prefix}.conv{number}", f"{prefix}.bn{number}", channels_out, channels, kernel)
                channels = channels_out
            if block == 0 and into != out:
                add(f"{prefix}.downsample.0", f"{prefix}.downsample.1", out, into, 1)
            into = out
    return shapes
