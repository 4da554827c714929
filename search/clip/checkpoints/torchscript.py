"""Copy the tensors of a TorchScript archive to a safetensors file.

A program of its own, run in a child process: the archive is another's program, of which only the
tensors are wanted, and a broken one may take the process with it.
"""

import sys
import warnings


def main(archive: str, out: str) -> None:
    """Write the state dict of ``archive`` to ``out``, tensors as they are."""
    import torch
    from safetensors.torch import save_file

    warnings.filterwarnings("ignore", message=r".*torch\.jit\.load", category=DeprecationWarning)
    state = torch.jit.load(archive, map_location="cpu").state_dict()
    save_file({name: tensor.detach().clone().contiguous() for name, tensor in state.items()}, out)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
