"""Graphics cards that may be asked about: peaks and memory."""

import dataclasses

# Share of its peak that a card is taken to reach in a training.
EFFICIENCY = 0.25


@dataclasses.dataclass(frozen=True)
class Card:
    """A graphics card.

    Args:
        float32: Float. Peak in TFLOPS (10**12 operations a second) of the
            products of matrices of a float32 network. From Ampere on backends
            compute them in TF32.
        half: Float. Peak in TFLOPS of a network in mixed precision, without
            sparsity.
        memory: Float. In units of 2**30 bytes.
        bfloat16: Boolean. Whether it computes in bfloat16.
    """

    float32: float
    half: float
    memory: float
    bfloat16: bool = True


# From NVIDIA's data sheets and product pages, where peaks with sparsity are
# twice these:
# https://www.nvidia.com/content/dam/en-zz/Solutions/Data-Center/tesla-t4/t4-tensor-core-datasheet-951643.pdf
# https://images.nvidia.com/content/technologies/volta/pdf/volta-v100-datasheet-update-us-1165301-r5.pdf
# https://www.nvidia.com/en-us/data-center/l4/ (and /a100/, /h100/, /h200/)
# Memory is what the driver reports, a little below the name of the card.
CARDS = {
    "T4": Card(8.1, 65, 15, bfloat16=False),
    "V100": Card(15.7, 125, 16, bfloat16=False),
    "L4": Card(60, 121, 22.5),
    "A100": Card(156, 312, 40),
    "A100-80GB": Card(156, 312, 80),
    "H100": Card(494, 989, 80),
    "H200": Card(494, 989, 141),
}
