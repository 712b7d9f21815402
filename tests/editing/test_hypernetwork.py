"""The hyper-network: what it is at the start, what it learns from, and its normaliser."""

import numpy as np
import pytest
import torch
from torch import Tensor

from malmen.editing.hypernetwork import HyperNetwork, Normaliser, ResidualBlock


def network(n_layers: int = 2, n_blocks: int = 2) -> HyperNetwork:
    generator = torch.Generator().manual_seed(0)
    new = HyperNetwork(5, 3, n_layers, rank=4, n_blocks=n_blocks, learning_rate=1e-6, generator=generator)
    return new.double()


def rows(n: int, d: int, seed: int = 1) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_it_starts_as_the_identity_on_its_standardised_input() -> None:
    new, keys, gradients = network(), 3 + rows(7, 5), 1e-3 * rows(7, 3, seed=2)
    both = torch.cat((keys, gradients), dim=1)
    new.normaliser.update(both)
    pseudo = torch.cat(new(keys, gradients, 1), dim=1)
    standardised = (both - both.mean(0)) / (both.std(0, correction=0) + 1e-7)
    torch.testing.assert_close(pseudo, standardised)


class ReluBlock(ResidualBlock):
    """The block as it would be with relu, or from torch 2.14 on with clamp."""

    def forward(self, z: Tensor, layer: int) -> Tensor:
        x = torch.relu(z @ self.A @ self.B + self.bias)
        return z + self.scale[layer] * x + self.shift[layer]


@pytest.mark.parametrize("kind, learns", [(ResidualBlock, True), (ReluBlock, False)])
def test_the_first_backward_reaches_what_starts_at_zero_but_would_not_through_relu(
    kind: type[ResidualBlock], learns: bool
) -> None:
    block = kind(8, 4, 2, torch.Generator().manual_seed(0)).double()
    (block(rows(7, 8), 0) ** 3).sum().backward()
    for parameter in (block.B, block.bias):
        assert parameter.grad is not None
        assert bool(parameter.grad.any()) == learns
    assert block.shift.grad is not None and block.shift.grad[0].all()


def test_negative_preactivations_are_cut_and_each_layer_has_its_own_scale_and_shift() -> None:
    block = ResidualBlock(2, 1, 3, torch.Generator()).double()
    with torch.no_grad():
        block.A.copy_(torch.tensor([[1.0], [2.0]]))
        block.B.copy_(torch.tensor([[1.0, -1.0]]))
        block.bias.copy_(torch.tensor([0.5, 0.25]))
        block.scale.copy_(torch.tensor([[1.0, 1.0], [10.0, 10.0], [1.0, 1.0]]))
        block.shift.copy_(torch.tensor([[0.0, 0.0], [0.0, 0.0], [7.0, 8.0]]))
    z = torch.tensor([[1.0, 1.0], [-1.0, -1.0]], dtype=torch.float64)
    # z A = 3 and -3; before the cut [3.5, -2.75] and [-2.5, 3.25].
    assert block(z, 0).tolist() == [[4.5, 1.0], [-1.0, 2.25]]
    assert block(z, 1).tolist() == [[36.0, 1.0], [-1.0, 31.5]]
    assert block(z, 2).tolist() == [[11.5, 9.0], [6.0, 10.25]]


def test_value_differences_and_summed_shift_are_sums_of_rank_one_shifts() -> None:
    new, keys, gradients = network(), rows(6, 5), rows(6, 3, seed=2)
    new.normaliser.update(torch.cat((keys, gradients), dim=1))
    with torch.no_grad():
        new.eta.copy_(torch.tensor([0.5, 0.25]))
    pseudo_keys, pseudo_gradients = new(keys, gradients, 1)
    each = [-0.25 * torch.outer(u, g) for u, g in zip(pseudo_keys, pseudo_gradients, strict=True)]
    torch.testing.assert_close(new.summed_shift(keys, gradients, 1), torch.stack(each).sum(0))
    expected = torch.stack([u @ shift for u, shift in zip(keys, each, strict=True)])
    torch.testing.assert_close(new.value_differences(keys, gradients, 1), expected)


def test_it_starts_with_the_given_learning_rate_and_a_regularisation_of_one() -> None:
    new = network(n_layers=3)
    assert new.eta.tolist() == pytest.approx([1e-6] * 3)
    assert [new.regularisation(i).item() for i in range(3)] == [1.0] * 3


@pytest.mark.parametrize("sizes", [[200], [1, 199], [1] * 200, [3, 90, 7, 100]])
def test_the_normaliser_knows_mean_and_variance_of_all_rows_however_batched(sizes: list[int]) -> None:
    data = 5 + rows(200, 4) * torch.tensor([1.0, 1e-4, 10.0, 0.0], dtype=torch.float64)
    normaliser = Normaliser(4).double()
    for part in data.split(sizes):
        normaliser.update(part)
    np.testing.assert_allclose(normaliser.mean, np.mean(data.numpy(), axis=0), rtol=1e-12)
    np.testing.assert_allclose(normaliser.variance, np.var(data.numpy(), axis=0), rtol=1e-6, atol=1e-14)
    assert normaliser.count == 200


def test_one_row_or_a_feature_that_never_varied_gives_zero_not_nan() -> None:
    normaliser = Normaliser(3)
    row = torch.tensor([[1.0, -2.0, 0.5]])
    normaliser.update(row)
    assert normaliser(row).tolist() == [[0.0, 0.0, 0.0]]
    normaliser.update(torch.tensor([[1.0, 2.0, 0.5]]))
    assert normaliser(row).tolist() == [[0.0, pytest.approx(-1.0), 0.0]]


def test_initial_values_depend_on_the_seed_alone() -> None:
    blocks = [ResidualBlock(4, 3, 1, torch.Generator().manual_seed(seed)).A for seed in (0, 0, 1)]
    assert torch.equal(blocks[0], blocks[1])
    assert not torch.equal(blocks[0], blocks[2])
