"""Which precision a machine computes in natively."""

from typing import Literal

Precision = Literal["float32", "bfloat16"]


def native_precision() -> Precision:
    """bfloat16 on a GPU or CPU with instructions for it, else float32."""
    import torch

    if torch.cuda.is_available():
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    # Without such instructions a CPU emulates bfloat16, at a fraction of float32's speed.
    flags = torch.cpu.get_capabilities()
    return "bfloat16" if flags.get("avx512_bf16") or flags.get("amx_bf16") or flags.get("bf16") else "float32"
