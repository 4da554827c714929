"""Copy the tensors of a TorchScript archive to a safetensors file.

Run as a script in a child process: an archive contains a program, of which only the tensors are
wanted, and a broken one may crash the process.
"""

import sys
import warnings


def main(archive: str, out: str) -> None:
    """Write the state dict of ``archive`` to ``out``, its tensors unchanged."""
    import torch
    from safetensors.torch import save_file

    warnings.filterwarnings("ignore", message=r".*torch\.jit\.load", category=DeprecationWarning)
    state = torch.jit.load(archive, map_location="cpu").state_dict()
    save_file({name: tensor.detach().clone().contiguous() for name, tensor in state.items()}, out)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
