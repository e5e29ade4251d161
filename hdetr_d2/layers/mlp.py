"""Multi-layer perceptron."""

import itertools

import torch
from torch import Tensor, nn

ACTIVATIONS = {
    "relu": nn.ReLU,
    "prelu": nn.PReLU,
    "silu": nn.SiLU,
    "swish": nn.SiLU,
    "gelu": nn.GELU,
    "selu": nn.SELU,
    "leaky_relu": nn.LeakyReLU,
    "hardsigmoid": nn.Hardsigmoid,
}


def make_activation(name: str) -> nn.Module:
    """An activation by its name in a config. ReLU works in place, on what layers here keep nothing of.

    Raises:
        ValueError: for a name that is not among ``ACTIVATIONS``.
    """
    if name not in ACTIVATIONS:
        raise ValueError(f"activation {name!r} is none of {sorted(ACTIVATIONS)}")
    return nn.ReLU(inplace=True) if name == "relu" else ACTIVATIONS[name]()


class MLP(nn.Module):
    """Linear layers with an activation between them, as DETR's box head has it.

    Args:
        in_features: width of the input.
        hidden_features: width of every hidden layer.
        out_features: width of the output.
        num_layers: how many linear layers; at least 1.
        activation: name in ``ACTIVATIONS``.
    """

    def __init__(
        self, *, in_features: int, hidden_features: int, out_features: int, num_layers: int, activation: str = "relu"
    ) -> None:
        super().__init__()
        if num_layers < 1:
            raise ValueError(f"MLP: num_layers must be at least 1, got {num_layers}")
        widths = [in_features] + [hidden_features] * (num_layers - 1) + [out_features]
        self.layers = nn.ModuleList(nn.Linear(n, m) for n, m in itertools.pairwise(widths))
        self.activation = make_activation(activation)

    @torch.no_grad()
    def start_at(self, value: Tensor) -> None:
        """Make the output ``value`` (out_features,) whatever the input, as an initialisation."""
        last = self.layers[-1]
        assert isinstance(last, nn.Linear)
        last.weight.zero_()
        last.bias.copy_(value)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features)."""
        for layer in self.layers[:-1]:
            x = self.activation(layer(x))
        return self.layers[-1](x)
