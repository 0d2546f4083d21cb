"""Which batch sizes and precisions fit into a memory."""

import dataclasses

from keras_epsched.runs.config import Settings
from keras_epsched.runs.measuring import Memory

GB = 2**30
# Share of a memory that is counted on: drivers and gaps take the rest.
_USABLE = 0.9


@dataclasses.dataclass(frozen=True)
class Fit:
    """Values of a config whose training fits into a memory.

    Args:
        dtype: String.
        batch_size: Int.
        accumulate: Int.
        bytes: Float. What a step holds.
    """

    dtype: str
    batch_size: int
    accumulate: int
    bytes: float

    def __str__(self):
        return (
            f"dtype={self.dtype}, batch_size={self.batch_size}, "
            f"accumulate={self.accumulate}: {self.bytes / GB:.2f} GB"
        )


def find(
    config: Settings, memory: Memory, half: str, memory_gb: float
) -> tuple[Fit, ...]:
    """Returns the largest batch that fits, in each precision.

    The images of a step of the optimizer stay as many. Where the config
    computes in float32, mixed precision halves what the images take.

    Args:
        config: `Settings`.
        memory: `Memory` of a training step of the config.
        half: String. The mixed precision to try, as `"mixed_bfloat16"`.
        memory_gb: Float. The memory, in units of 2**30 bytes.
    """
    together = config.batch_size * config.accumulate
    sizes = [size for size in range(together, 0, -1) if together % size == 0]
    dtypes: list[str] = [config.dtype]
    if config.dtype == "float32":
        dtypes.append(half)
    found = []
    for dtype in dtypes:
        for size in sizes:
            need = memory.of(size, halved=dtype != config.dtype)
            if size < together and config.accumulate == 1:
                # The mean of the gradients so far.
                need += memory.gradient
            if need <= _USABLE * memory_gb * GB:
                found.append(Fit(dtype, size, together // size, need))
                break
    return tuple(found)
