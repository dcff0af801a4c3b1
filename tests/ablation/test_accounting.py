import pytest
import torch
from torch import nn

from vxl_lightning.ablation.accounting import flops


class Queries(nn.Module):
    """Hands a view of its parameter to a layer, as resamplers do."""

    def __init__(self):
        super().__init__()
        self.queries = nn.Parameter(torch.randn(4, 8))
        self.fixed = nn.Parameter(torch.randn(2), requires_grad=False)
        self.layer = nn.Linear(8, 16, bias=False)

    def forward(self):
        return self.layer(self.queries[:4].expand(3, 4, 8))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.enable_grad])
def test_products_are_counted_with_and_without_gradients(mode):
    module = Queries()
    with mode():
        assert flops(module, module) == 2 * 3 * 4 * 8 * 16
    assert [p.requires_grad for p in module.parameters()] == [True, False, True]
