"""The super-resolution networks: structure, symmetries, tiles against the whole, the shipped weights."""

import math

import numpy as np
import pytest
import torch

from inrformat.errors import UsageError
from inrformat.fit.latents import by_latents
from inrformat.models.light import LightSR
from inrformat.models.registry import create_model, default_model
from inrformat.models.sr import block_of, most_activations, super_resolve
from inrformat.models.srdensenet import SRDenseNet
from inrformat.phantom import head_phantom
from inrformat.resample import downsample, lr_shape, upsample


@pytest.fixture(autouse=True)
def one_thread():
    """Tiny networks: threads would only wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def blocks(monkeypatch):
    """The shapes (z, y, x) of the blocks that light models are given, halo and all."""
    given, forward = [], LightSR.forward
    monkeypatch.setattr(
        LightSR, "forward", lambda self, lr, *rest: given.append(lr.shape[1:]) or forward(self, lr, *rest)
    )
    return given


MIXES = [(4, 4, 4), (2, 2, 2), (1, 4, 4), (1, 2, 2), (4, 1, 2), (1, 1, 2), (1, 1, 1)]


def grid(shape, seed=0):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def tiny_light(seed=0):
    torch.manual_seed(seed)
    model = LightSR(channels=8, layers=2)
    torch.nn.init.normal_(model.head, std=0.3)
    torch.nn.init.normal_(model.gains, std=0.3)
    return model.eval().requires_grad_(False)


def tiny_dense(seed=0):
    torch.manual_seed(seed)
    model = SRDenseNet(blocks=2, layers=3, growth=4, maps=8)
    torch.nn.init.normal_(model.reconstruction.weight, std=0.1)
    return model.eval().requires_grad_(False)


@pytest.mark.parametrize(
    "box", [((0, 4), (2, 5), (0, 1)), ((3, 4), (0, 9), (6, 7)), ((1, 2), (3, 4), (2, 3))]
)
def test_a_block_is_of_the_grid_with_its_border_repeated(box):
    lr, halo = grid((4, 9, 7)), (2, 12, 1)
    padded = np.pad(lr.numpy(), [(h, h) for h in halo], mode="edge")
    expected = padded[tuple(slice(a, b + 2 * h) for (a, b), h in zip(box, halo, strict=True))]
    assert np.array_equal(block_of(lr, box, halo).numpy(), expected)


def test_light_parameters_by_hand():
    model = LightSR(32, 4)
    first, convs, gains, head = 27 * 32, 4 * 27 * 32 * 32, 4 * 3 * 3 * 32, 7**3 * 32
    assert sum(p.numel() for p in model.parameters()) == first + convs + gains + head == 123_584
    assert all("bias" not in name for name, _ in model.named_parameters())


@pytest.mark.parametrize("factors", MIXES)
def test_light_is_equivariant_to_scale_and_offset(factors):
    model, lr = tiny_light(), grid((1, 8, 9, 10))
    detail = model(lr, factors)
    assert detail.shape == (1, 2 * factors[0], 3 * factors[1], 4 * factors[2])
    scaled = model(37.0 * lr - 5.0, factors)
    torch.testing.assert_close(scaled, 37.0 * detail, rtol=0, atol=37e-5 * float(detail.abs().max()))
    assert float(model(torch.full_like(lr, 0.7), factors).abs().max()) < 1e-5  # nothing to add to a constant


def test_light_knows_which_axis_and_factor():
    model, lr = tiny_light(), grid((1, 9, 9, 9))
    a, b = model(lr, (1, 2, 4)), model(lr.transpose(1, 3), (4, 2, 1)).transpose(1, 3)
    assert a.shape == b.shape
    assert not torch.allclose(a, b)
    # sub-voxel positions land where they belong: a head that marks one position marks one HR voxel in every
    # cell
    torch.nn.init.zeros_(model.head)
    model.head.data[0, 2, 5] = 1.0  # z: factor 1; y: factor 2, second half; x: factor 4, third quarter
    marked = model(lr, (1, 2, 4))[0]
    expected = torch.zeros_like(marked, dtype=torch.bool)
    expected[:, 1::2, 2::4] = True
    assert torch.equal(marked != 0, expected)


def test_light_supports():
    model = tiny_light()
    assert all(model.supports(f) for f in MIXES)
    assert not any(model.supports(f) for f in [(1, 3, 3), (8, 8, 8), (1, 1, 8)])
    shape, lr = (4, 16, 8), grid((4, 2, 1))
    assert torch.equal(super_resolve(model, lr, (1, 8, 8), shape), upsample(lr, (1, 8, 8), shape))


@pytest.mark.parametrize("factors", MIXES)
@pytest.mark.parametrize("shape", [(17, 23, 26), (1, 30, 13), (5, 1, 1)])
def test_light_tiles_and_regions_equal_the_whole(factors, shape):
    model, lr = tiny_light(), grid(lr_shape(shape, factors))
    whole = super_resolve(model, lr, factors, shape, tile=(99, 99, 99), dtype=torch.float32)
    assert whole.shape == shape
    for tile in [(2, 3, 4), (99, 1, 5)]:
        tiled = super_resolve(model, lr, factors, shape, tile=tile, dtype=torch.float32)
        torch.testing.assert_close(tiled, whole, rtol=0, atol=1e-5)
    z0, y0 = shape[0] // 2, shape[1] // 3
    part = super_resolve(model, lr, factors, shape, z0, y0=y0, tile=(2, 3, 4), dtype=torch.float32)
    torch.testing.assert_close(part, whole[z0:, y0:], rtol=0, atol=1e-5)


def test_tiles_of_few_slices_are_longer_and_take_no_more_memory(blocks):
    """For a region of 2 of 24 LR slices, beside those for all of them."""
    model, lr, shape, tile = tiny_light(), grid((24, 40, 9)), (24, 40, 9), (16, 8, 8)
    super_resolve(model, lr, (1, 1, 1), shape, tile=tile)
    whole, few = max(b.numel() for b in blocks), len(blocks)
    blocks.clear()
    super_resolve(model, lr, (1, 1, 1), shape, 5, 7, tile=tile)
    assert max(b.numel() for b in blocks) <= whole and len(blocks) == 4 < few / 4


@pytest.mark.parametrize("shape", [(1, 90, 9), (2, 30, 30), (5, 7, 40), (16, 90, 9), (40, 40, 40)])
def test_no_block_makes_more_than_is_said(blocks, shape):
    """Of whole grids and of their parts; else a file would take more than a caller's limits."""
    model = tiny_light()
    for tile in [(16, 8, 8), (3, 20, 5), (1, 1, 1)] if math.prod(shape) < 2000 else [(16, 8, 8)]:
        most = most_activations(model, shape, (1, 1, 1), tile)
        blocks.clear()
        for z1 in {1, shape[0] // 2 or 1, shape[0]}:
            super_resolve(model, grid(shape), (1, 1, 1), shape, 0, z1, tile=tile)
        assert max(model.activations(block, (1, 1, 1)) for block in blocks) <= most


def test_bfloat16_changes_the_detail_little():
    model, factors, shape = tiny_light(), (2, 2, 2), (16, 16, 16)
    lr = grid(lr_shape(shape, factors))
    exact = super_resolve(model, lr, factors, shape, dtype=torch.float32)
    rough = super_resolve(model, lr, factors, shape, dtype=torch.bfloat16)
    detail = exact - upsample(lr, factors, shape)
    assert float((rough - exact).std() / detail.std()) < 0.03


def test_an_untrained_model_is_lanczos():
    lr, shape = grid((2, 4, 4)), (2, 16, 16)
    for model in (LightSR(8, 1).eval(), create_model("srdensenet", {"blocks": 1, "growth": 4}).eval()):
        assert torch.equal(super_resolve(model, lr, (1, 4, 4), shape), upsample(lr, (1, 4, 4), shape))


def test_srdensenet_parameters_by_hand():
    low = 9 * 128 + 128
    blocks = sum(
        9 * 128 * (i + 1) * 16 + 16 + sum(9 * 16 * j * 16 + 16 for j in range(1, 8)) for i in range(8)
    )
    bottleneck, deconvolutions, reconstruction = 1152 * 256 + 256, 2 * (9 * 256 * 256 + 256), 9 * 256 + 1
    total = low + blocks + bottleneck + deconvolutions + reconstruction
    with torch.device("meta"):
        model = SRDenseNet()
    assert sum(p.numel() for p in model.parameters()) == total == 2_659_585


def test_srdensenet_structure():
    with torch.device("meta"):
        model = SRDenseNet()
    convs = [m for m in model.modules() if isinstance(m, (torch.nn.Conv2d, torch.nn.ConvTranspose2d))]
    assert len(convs) == 69  # weight layers, as in Tong et al. 2017
    for i, block in enumerate(model.blocks):
        assert [c.in_channels for c in block.convs] == [128 * (i + 1), 16, 32, 48, 64, 80, 96, 112]
        assert {c.out_channels for c in block.convs} == {16}
    assert (model.bottleneck.in_channels, model.bottleneck.out_channels) == (1152, 256)
    assert (model.up1.stride, model.up2.stride) == ((2, 2), (2, 2))
    seen = []
    model.bottleneck.register_forward_hook(lambda _module, inputs, _output: seen.append(inputs[0].shape))
    assert model.network(torch.empty(1, 1, 6, 5, device="meta")).shape == (1, 1, 24, 20)
    assert seen == [(1, 1152, 6, 5)]


@pytest.mark.parametrize("fz", [1, 2, 4])
def test_srdensenet_slabs_equal_the_whole(fz):
    model, factors, shape = tiny_dense(), (fz, 4, 4), (19, 22, 29)
    assert model.supports(factors)
    assert not model.supports((4, 4, 2))
    lr = grid(lr_shape(shape, factors))
    whole = super_resolve(model, lr, factors, shape, dtype=torch.float32)
    assert float((whole - upsample(lr, factors, shape)).abs().max()) > 1e-3
    part = super_resolve(model, lr, factors, shape, 7, 12, y0=3, x1=9, tile=(1, 2, 2), dtype=torch.float32)
    torch.testing.assert_close(part, whole[7:12, 3:, :9], rtol=0, atol=1e-5)


def test_srdensenet_leaves_z_to_lanczos():
    """The detail of a stack of equal slices is the same in every slice, whatever the factor along z."""
    model, image = tiny_dense(), grid((1, 6, 5))
    one = super_resolve(model, image, (1, 4, 4), (1, 24, 20), dtype=torch.float32)
    stack = super_resolve(model, image.expand(5, 6, 5), (3, 4, 4), (14, 24, 20), dtype=torch.float32)
    torch.testing.assert_close(stack, one.expand(14, 24, 20), rtol=0, atol=1e-5)


def test_create_model_refuses():
    for kind, config in [("heavy", {}), ("light", {"depth": 3}), ("light", {"layers": 0})]:
        with pytest.raises(UsageError):
            create_model(kind, config)


@pytest.mark.parametrize("factors", [(2, 2, 2), (4, 4, 4), (1, 2, 2), (1, 4, 4)])
def test_the_shipped_model_beats_lanczos_on_what_it_never_saw(factors):
    """On grids as files hold them: an intact one of (1, 2, 2), which no file has, gains nothing by it."""
    volume = head_phantom((48, 96, 96), noise=4.0).data
    low, high = float(volume.min()), float(volume.max())
    lr = by_latents(downsample(volume, factors).sub_(low).div_(high - low), 0.1)
    original = torch.from_numpy((volume.astype(np.float32) - low) / (high - low))
    lanczos, ours = (
        float((super_resolve(m, lr, factors, volume.shape).clamp_(0, 1) - original).square().mean())
        for m in (None, default_model())
    )
    assert 10 * np.log10(lanczos / ours) > 0.2


def test_the_shipped_model_says_what_it_is():
    model = default_model()
    assert model.header is not None
    assert model.file is not None
    assert (model.header.name, model.header.version, model.header.licence) == ("light", 4, "Apache-2.0")
    assert "FNNDSC" in model.header.trained_on
    assert "head phantom" in model.header.trained_on
    assert "made by code" in model.header.trained_on
    assert len(model.file) < 400_000
    assert np.isfinite([float(p.abs().max()) for p in model.parameters()]).all()
