// The kernels for tensors of one type; the types are compiled apart, side by side.
#include "launch.cuh"

namespace triptych::cuda {

template void forward<BFloat16>(const ForwardCall&, float*, Stream);
template void backward<BFloat16>(const BackwardCall&, float*, Stream);

}  // namespace triptych::cuda
