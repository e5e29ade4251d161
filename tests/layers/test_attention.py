"""Attention by groups against PyTorch's module with one mask over the whole sequence."""

import os
import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from hdetr_d2.layers import GroupView, MultiheadAttention

WIDTH, HEADS = 24, 4


def pair(dropout: float = 0.0) -> tuple[MultiheadAttention, nn.MultiheadAttention]:
    """Ours and PyTorch's with the same weights; ours loads theirs by name."""
    theirs = nn.MultiheadAttention(WIDTH, HEADS, dropout=dropout, batch_first=True).double()
    nn.init.normal_(theirs.in_proj_bias)
    nn.init.normal_(theirs.out_proj.bias)
    ours = MultiheadAttention(embed_dim=WIDTH, num_heads=HEADS, dropout=dropout).double()
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


def run_both(views: list[GroupView] | None, blocked: Tensor | None, length: int) -> tuple[list[Tensor], list[Tensor]]:
    """Output, and gradients of both inputs and of all weights, of ours and of PyTorch's."""
    ours, theirs = pair()
    weight = torch.randn(2, length, WIDTH, dtype=torch.float64)
    content, position = torch.randn(2, 2, length, WIDTH, dtype=torch.float64).unbind(0)
    results = []
    for module in (ours, theirs):
        x, p = content.clone().requires_grad_(), position.clone().requires_grad_()
        if module is ours:
            output = ours(x, p, views)
        else:
            output, _ = theirs(x + p, x + p, x, attn_mask=blocked, need_weights=False)
        (output * weight).sum().backward()
        gradients = dict(module.named_parameters())
        results.append([output, x.grad, p.grad, *(gradients[name].grad for name in sorted(gradients))])
    return results[0], results[1]


def assert_same(results: tuple[list[Tensor], list[Tensor]]) -> None:
    for ours, theirs in zip(*results):
        torch.testing.assert_close(ours, theirs)


def test_one_group_is_torchs_multi_head_attention() -> None:
    assert_same(run_both(None, None, 7))


def test_groups_that_are_blind_to_one_another_give_what_the_block_mask_gives() -> None:
    views = [GroupView((0, 3), ((0, 3),)), GroupView((3, 8), ((3, 8),)), GroupView((8, 9), ((8, 9),))]
    group = torch.tensor([0] * 3 + [1] * 5 + [2])
    assert_same(run_both(views, group[:, None] != group, 9))


def test_a_group_that_sees_another_gives_what_the_one_sided_mask_gives() -> None:
    views = [GroupView((0, 3), ((0, 3),)), GroupView((3, 8), ((3, 8), (0, 3)))]
    blocked = torch.zeros(8, 8, dtype=torch.bool)
    blocked[:3, 3:] = True
    assert_same(run_both(views, blocked, 8))


def test_a_mask_inside_a_group_blocks_what_it_says() -> None:
    inner = torch.tensor([0, 0, 1, 1, 1])
    inner = inner[:, None] != inner
    views = [GroupView((0, 3), ((0, 3),)), GroupView((3, 8), ((3, 8),), inner)]
    blocked = torch.ones(8, 8, dtype=torch.bool)
    blocked[:3, :3] = False
    blocked[3:, 3:] = inner
    assert_same(run_both(views, blocked, 8))


def test_attention_drops_weights_in_training_only() -> None:
    attention = MultiheadAttention(embed_dim=WIDTH, num_heads=HEADS, dropout=0.5)
    content, position = torch.randn(2, 1, 6, WIDTH).unbind(0)
    attention.train()
    assert not torch.equal(attention(content, position), attention(content, position))
    attention.eval()
    assert torch.equal(attention(content, position), attention(content, position))


def test_a_width_that_the_heads_do_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match=r"10.*num_heads 4"):
        MultiheadAttention(embed_dim=10, num_heads=4)


@pytest.mark.parametrize("capability", ["default", "avx2", "avx512"])
def test_bfloat16_works_with_fewer_instructions_than_the_cpu_has(capability: str) -> None:
    program = "import torch; from hdetr_d2.layers.attention import attend, attend_to_memory\n"
    program += "torch.manual_seed(0); x = torch.randn(3, 1, 2, 300, 16)\n"
    program += "for function in (attend, lambda *x: attend_to_memory(*x, None)):\n"
    program += (
        "    half = [part.bfloat16().requires_grad_() for part in x]; found = function(*half); found.sum().backward()\n"
    )
    program += (
        "    assert (found.float() - function(*x)).abs().max() < 0.02, (found.float() - function(*x)).abs().max()\n"
    )
    environment = {**os.environ, "ATEN_CPU_CAPABILITY": capability}
    subprocess.run([sys.executable, "-c", program], env=environment, check=True)
