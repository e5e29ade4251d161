"""The recurrent decoder: objects around a cell, one after another."""

import torch
from torch import Tensor, nn


class CellDecoder(nn.Module):
    """An LSTM that reads the same feature at every step and predicts one object each time, the surest first.

    Args:
        feature_dim: of the cells' features.
        hidden_dim: of the LSTM; 250 in the paper.
        num_steps: most objects of a cell; 5.
        dropout: of the outputs of the LSTM, not of its state; 0.15 in the authors' code.
        init_range: weights are drawn uniformly within plus or minus this; 0.1.
        box_scale: pixels of one unit of the box heads; 100.
    """

    def __init__(
        self,
        *,
        feature_dim: int = 1024,
        hidden_dim: int = 250,
        num_steps: int = 5,
        dropout: float = 0.15,
        init_range: float = 0.1,
        box_scale: float = 100.0,
    ) -> None:
        super().__init__()
        # As in the authors' code: no biases in the LSTM, and heads of their own for each step. It also ties the output
        # gate to the forget gate, which is not done here.
        self.lstm = nn.LSTMCell(feature_dim, hidden_dim, bias=False)
        self.class_heads = nn.ModuleList(nn.Linear(hidden_dim, 2) for _ in range(num_steps))
        self.box_heads = nn.ModuleList(nn.Linear(hidden_dim, 4) for _ in range(num_steps))
        self.dropout = nn.Dropout(dropout)
        self.box_scale = box_scale
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            else:
                nn.init.uniform_(parameter, -init_range, init_range)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Features (R, D) of cells -> logits (R, T, 2) and boxes (R, T, 4).

        Logits are of "nothing" and "object", boxes cxcywh in pixels from the centre of the cell.
        """
        state = None
        logits, boxes = [], []
        for class_head, box_head in zip(self.class_heads, self.box_heads):
            state = self.lstm(features, state)
            hidden = self.dropout(state[0])
            logits.append(class_head(hidden))
            boxes.append(box_head(hidden))
        return torch.stack(logits, dim=1).float(), self.box_scale * torch.stack(boxes, dim=1).float()
