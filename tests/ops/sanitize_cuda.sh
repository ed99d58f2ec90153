#!/bin/sh
# The CUDA kernels on a GPU under NVIDIA's compute-sanitizer, one tool after the other; stops at the first finding.
#
#   tests/ops/sanitize_cuda.sh [python]
#
# Needs a GPU, the built kernels and compute-sanitizer of the CUDA toolkit on PATH. Takes minutes.
set -eu
cd "$(dirname "$0")/../.."
python=${1:-python}
export PYTORCH_NO_CUDA_MEMORY_CACHING=1 # every tensor in an allocation of its own, so that its ends are watched
tests="-p no:cacheprovider -q --timeout=0 tests/ops/test_cuda_kernels.py"
cases="$tests -k test_as_on_the_emulator"

run() {
    echo "compute-sanitizer $*"
    # shellcheck disable=SC2086
    compute-sanitizer --error-exitcode=1 --target-processes=all "$@" "$python" -m pytest $cases
}

run --tool memcheck
run --tool racecheck --racecheck-report all
run --tool synccheck
# reads of device memory that nothing has written; the kernels' scratch memory is never zeroed but where atomics add
run --tool initcheck
