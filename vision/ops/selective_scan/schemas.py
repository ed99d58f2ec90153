"""The signatures of the operators, as the compiled library and the PyTorch operators both define them."""

_SCAN = (
    "Tensor u, Tensor delta, Tensor A, Tensor B, Tensor C, Tensor? D, Tensor? z, Tensor? delta_bias, "
    "Tensor? initial_state"
)
_SS2D = "Tensor x, Tensor dts, Tensor dt_weight, Tensor dt_bias, Tensor A, Tensor B, Tensor C, Tensor D"

SCHEMAS = {
    "selective_scan": f"({_SCAN}, bool delta_softplus) -> (Tensor y, Tensor last_state)",
    "selective_scan_fwd": f"({_SCAN}, bool delta_softplus) -> (Tensor y, Tensor last_state, Tensor states)",
    "selective_scan_bwd": (
        f"(Tensor grad_y, Tensor? grad_last_state, {_SCAN}, Tensor states, bool delta_softplus, bool deterministic)"
        " -> (Tensor du, Tensor ddelta, Tensor dA, Tensor dB, Tensor dC, Tensor dD, Tensor dz, Tensor ddelta_bias, "
        "Tensor dinitial_state)"
    ),
    "ss2d": f"({_SS2D}, SymInt height, SymInt width) -> Tensor y",
    "ss2d_fwd": f"({_SS2D}, SymInt height, SymInt width) -> (Tensor y, Tensor states)",
    "ss2d_bwd": (
        f"(Tensor grad_y, {_SS2D}, Tensor states, SymInt height, SymInt width, bool deterministic)"
        " -> (Tensor dx, Tensor ddts, Tensor ddt_weight, Tensor ddt_bias, Tensor dA, Tensor dB, Tensor dC, Tensor dD)"
    ),
}
