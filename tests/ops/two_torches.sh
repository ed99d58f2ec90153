#!/usr/bin/env bash
# Loads the compiled library, as it is, in other versions of PyTorch, and compares its results with a loop:
#     tests/ops/two_torches.sh [VERSION ...]        default: 2.13.0
# Each version gets a virtual environment of its own in a temporary folder (about 1 GB, removed at the end). The library
# is the one beside vision/ops/selective_scan, or LIBRARY=/path/to/_kernels.abi3.so. Not part of the test suite.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

library=${LIBRARY:-$(ls "$PWD"/vision/ops/selective_scan/_kernels*.so)}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

for version in "${@:-2.13.0}"; do
  "${PYTHON:-python3}" -m venv "$folder/venv"
  "$folder/venv/bin/pip" install --quiet "torch==$version" numpy
  "$folder/venv/bin/python" - "$library" "$version" <<'PYTHON'
import sys

import torch

library, version = sys.argv[1:]
torch.ops.load_library(library)
torch.manual_seed(0)
N, L, D, S = 2, 100, 24, 5
u, delta, z = torch.randn(3, N, L, D, dtype=torch.double).unbind()
B, C = torch.randn(2, N, L, 1, S, dtype=torch.double).unbind()
A, skip, bias = -torch.rand(D, S, dtype=torch.double), torch.randn(D).double(), torch.randn(D).double()
first = torch.randn(N, D, S, dtype=torch.double)
inputs = [t.float().double().requires_grad_() for t in (u, delta, A, B, C, skip, z, bias, first)]


def loop(u, delta, A, B, C, skip, z, bias, state):
    step, rows = torch.nn.functional.softplus(delta + bias), []
    for l in range(u.shape[1]):
        drive = (step * u)[:, l, :, None] * B[:, l]
        state = torch.exp(step[:, l, :, None] * A) * state + drive
        rows.append((state * C[:, l]).sum(-1) + skip * u[:, l])
    return torch.stack(rows, 1) * torch.nn.functional.silu(z), state


plain = [t.detach().float() for t in inputs]
y, last = loop(*inputs)
found_y, found_last, states = torch.ops.triptych.selective_scan_fwd(*plain, True)
grads = torch.ops.triptych.selective_scan_bwd(torch.ones_like(found_y), None, *plain, states, True, False)
pairs = [(found_y, y), (found_last, last), *zip(grads, torch.autograd.grad(y.sum(), inputs))]

# An image of 3 x 5, which passes its height and width as symbolic integers.
H, W, R = 3, 5, 2
image, ranks = torch.randn(N, H * W, D), torch.randn(N, H * W, 4, R)
weight, offset, decay = torch.randn(4, D, R), torch.randn(4, D), -torch.rand(4, D, S)
write, read, direct = torch.randn(N, H * W, 4, S), torch.randn(N, H * W, 4, S), torch.randn(4, D)
merged = torch.ops.triptych.ss2d(image, ranks, weight, offset, decay, write, read, direct, H, W)
grid, wanted = torch.arange(H * W).view(H, W), torch.zeros(N, H * W, D, dtype=torch.double)
for k, order in enumerate((grid.flatten(), grid.T.flatten(), grid.flatten().flip(0), grid.T.flatten().flip(0))):
    along = [t[:, order].double() for t in (image, ranks[:, :, k], write[:, :, k, None], read[:, :, k, None])]
    size = along[1] @ weight[k].double().T
    gate = torch.full((), 1.2784645427610738, dtype=torch.double).expand(N, H * W, D)  # its silu is 1
    one, _ = loop(along[0], size, decay[k].double(), along[2], along[3], direct[k].double(), gate, offset[k].double(),
                  torch.zeros(N, D, S, dtype=torch.double))  # fmt: skip
    wanted[:, order] += one / torch.nn.functional.silu(gate)
pairs.append((merged, wanted))
worst = max(((a.double() - b).norm() / b.norm()).item() for a, b in pairs)
print(f"torch {torch.__version__}, asked for {version}: {torch.ops.triptych.cpu_isa()}, largest error {worst:.1e}")
sys.exit(worst > 1e-6)
PYTHON
  rm -rf "$folder/venv"
done
