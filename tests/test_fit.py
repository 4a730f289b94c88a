import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from inrformat.coding import network
from inrformat.coding.network import parameter_count
from inrformat.fit import plan, quantise, train
from inrformat.fit.siren import FloatSiren, forward, gradients, initialise, sensitivities
from inrformat.metrics import activity
from inrformat.models.siren import Evaluator

CPU = torch.device("cpu")
QUICK = train.FitSettings(width=32, depth=3, steps=250, batch=1 << 11)


def blobs(shape=(8, 20, 24)):
    z, y, x = torch.meshgrid(*[torch.linspace(-1, 1, n) for n in shape], indexing="ij")
    return 0.6 * torch.exp(-4 * (z**2 + y**2 + x**2)) + 0.3 * (torch.sin(5 * x + 2 * y) > 0) * 0.5


def psnr(values, grid):
    return -10 * math.log10(float((values - grid).double().square().mean()))


def exact(result, grid):
    unpacked = network.unpack(network.pack(result.network))
    return Evaluator(unpacked, grid.shape).codes().float() / (1 << network.CODE_BITS)


@pytest.mark.parametrize(("depth", "parameters"), [(2, 17_153), (3, 33_665), (4, 50_177)])
def test_parameter_counts_are_those_of_the_papers_tables_1_to_3(depth, parameters):
    assert parameter_count(128, depth) == parameters
    net = new_siren(128, depth)
    assert sum(t.numel() for t in (*net.weights, *net.biases)) == parameters


def new_siren(width, depth, omega=30.0):
    return initialise(width, depth, omega, torch.ones(3), torch.Generator().manual_seed(0), CPU)


def test_initialisation_is_that_of_the_siren_paper():
    net = new_siren(256, 3)
    first, hidden, last = net.weights[0], net.weights[1], net.weights[-1]
    assert first.abs().max() <= 30 / 3 and first.abs().max() > 0.95 * 30 / 3
    bound = math.sqrt(6 / 256)  # of omega * W
    assert bound * 0.95 < hidden.abs().max() <= bound
    assert last.abs().max() <= bound / 30
    x = torch.rand(4096, 3) * 2 - 1
    _, sines, _ = forward(net, x, torch.float32)
    for s in sines[1:]:  # arcsine-distributed activations, as section 3.2 there shows: variance 1/2
        assert float(s.var()) == pytest.approx(0.5, abs=0.1)


def test_gradients_are_those_of_autograd():
    net = new_siren(16, 3)
    x, target = torch.rand(64, 3) * 2 - 1, torch.rand(64)
    loss, grads = gradients(net, x, target, torch.float32)
    params = [p for pair in zip(net.weights, net.biases, strict=True) for p in pair]
    for p in params:
        p.requires_grad_()
    a = x
    for w, b in list(zip(net.weights, net.biases, strict=True))[:-1]:
        a = torch.sin(a @ w.T + b)
    expected = ((a @ net.weights[-1].T + net.biases[-1])[:, 0] - target).square().mean()
    expected.backward()
    assert float(loss) == pytest.approx(float(expected.detach()), rel=1e-5)
    for p, g in zip(params, grads, strict=True):
        torch.testing.assert_close(g.reshape(p.shape), p.grad, rtol=1e-4, atol=1e-6)


def test_sensitivity_predicts_what_noise_costs():
    net = new_siren(32, 3)
    x = torch.rand(4096, 3) * 2 - 1
    clean, _, _ = forward(net, x, torch.float32)
    rng = torch.Generator().manual_seed(1)
    for layer, predicted in enumerate(sensitivities(net, x)):
        noise = 1e-3 * torch.randn(net.weights[layer].shape, generator=rng)
        weights = [w + noise if i == layer else w for i, w in enumerate(net.weights)]
        noisy, _, _ = forward(FloatSiren(weights, net.biases), x, torch.float32)
        cost = float((noisy - clean).square().mean())
        assert cost == pytest.approx(predicted * 1e-6 * noise.numel(), rel=0.6)


def test_a_fit_is_close_and_its_exact_network_is_the_float_one():
    grid = blobs()
    result = train.fit(grid, QUICK, CPU)
    decoded = exact(result, grid)
    assert psnr(decoded, grid) > 28
    steps = quantise.layer_steps(result.float_net, result.sensitivity, result.noise)
    places = torch.cartesian_prod(*[(2 * torch.arange(n) + 1 - n) / n for n in grid.shape])
    values, _, _ = forward(quantise.rounded(result.float_net, steps), places, torch.float32)
    float_psnr = psnr((values.reshape(grid.shape) + 1) / 2, grid)
    assert psnr(decoded, grid) == pytest.approx(float_psnr, abs=0.05)


@pytest.mark.parametrize("size", [900, 1600])
def test_target_bytes_are_kept_and_cost_little(size):
    grid = blobs()
    result = train.fit(grid, replace(QUICK, target_bytes=size), CPU)
    assert len(network.pack(result.network)) == pytest.approx(size, abs=0.1 * size + 150)
    assert psnr(exact(result, grid), grid) > 20


def test_coarser_rounding_takes_fewer_bytes_and_decibels():
    grid = blobs()
    result = train.fit(grid, QUICK, CPU)
    sizes, quality = [], []
    for noise in (1e-4, 1e-3, 1e-2):
        other = result.requantised(noise)
        sizes.append(len(network.pack(other.network)))
        quality.append(psnr(exact(other, grid), grid))
    assert sizes == sorted(sizes, reverse=True)
    assert quality == sorted(quality, reverse=True)


@pytest.mark.parametrize("optimiser", ["muon", "adam"])
def test_the_same_seed_gives_the_same_bytes(optimiser):
    settings = replace(QUICK, steps=30, optimiser=optimiser)
    one, two, other = (
        network.pack(train.fit(blobs(), replace(settings, seed=seed), CPU).network) for seed in (5, 5, 6)
    )
    assert one == two != other


def test_progress_ends_with_the_last_step_and_a_time_budget_is_kept():
    seen = []
    train.fit(blobs(), replace(QUICK, steps=100), CPU, seen.append)
    assert seen[-1].step == 100 and seen[-1].seconds_left == pytest.approx(0, abs=1e-6)
    result = train.fit(blobs(), replace(QUICK, steps=10**6, seconds=0.5), CPU)
    assert result.seconds < 3 and result.steps < 10**6


def test_a_width_is_found_for_any_size():
    for size in (10, 1000, 40_000, 10**6, 10**9):
        width = plan.width_for(size, 4)
        assert width % 8 == 0 and 8 <= width <= network.MOST_WIDTH
    assert parameter_count(plan.width_for(40_000, 4), 4) == pytest.approx(
        8 * 40_000 / plan.BITS_PER_WEIGHT, rel=0.15
    )


def test_what_a_reduction_loses():
    y, x = np.mgrid[:32, :32]
    data = np.broadcast_to(1000 * ((x // 4 + y // 4) % 2), (16, 32, 32)).astype(np.int16)  # nothing along z
    span = (0.0, 1000.0)
    losses = [
        plan.resampling_loss(data, span, f, None, CPU, 0, activity(data))
        for f in ((2, 4, 4), (2, 2, 2), (1, 2, 2), (1, 1, 1))
    ]
    assert losses[0] > 2 * losses[1] and losses[3] < 1e-10
    assert losses[1] == pytest.approx(losses[2], rel=0.01)
