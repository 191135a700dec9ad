"""Loss values and gradients of the original code."""

import numpy as np
import pytest
import torch

from higherhrnet.methods.bottom_up.losses import BottomUpLoss, heatmap_loss, tag_losses
from higherhrnet.outputs import Head, Outputs
from higherhrnet.structures import Targets

from .shared import golden_arrays

ARRAYS = golden_arrays("losses.npz")


def cells_of(joints, size):
    """The original's compacted lists (B, 30, 17, 2) → (B, P, K) cells."""
    indices = np.full((len(joints), 30, 17), -1)
    for image, people in enumerate(joints):
        for person, entries in enumerate(people):
            for flat, seen in entries:
                if seen:
                    indices[image, person, flat // size**2] = flat % size**2
    return torch.from_numpy(indices)


@pytest.mark.parametrize("kind", ["exp", "max"])
@pytest.mark.parametrize("name", ["pull", "push"])
def test_tag_losses(kind, name):
    tags = torch.from_numpy(ARRAYS["tags"]).requires_grad_()
    losses = dict(
        zip(("pull", "push"), tag_losses(tags, cells_of(ARRAYS["joints"], 32), kind), strict=True)
    )
    np.testing.assert_allclose(losses[name].detach(), ARRAYS[f"{kind}_{name}"], atol=5e-7)
    losses[name].sum().backward()
    np.testing.assert_allclose(tags.grad, ARRAYS[f"{kind}_{name}_grad"], atol=1e-7)


def test_heatmap_loss():
    prediction = torch.from_numpy(ARRAYS["hm_pred"].astype(np.float32)).requires_grad_()
    weight = torch.from_numpy(ARRAYS["hm_mask"].astype(np.float32))[:, None]
    loss = heatmap_loss(prediction, torch.from_numpy(ARRAYS["hm_gt"]), weight)
    np.testing.assert_allclose(loss.detach(), ARRAYS["hm_loss"], atol=1e-8)
    loss.sum().backward()
    np.testing.assert_allclose(prediction.grad, ARRAYS["hm_grad"], atol=1e-10)


def multi_targets():
    """Targets of both outputs, made by the codec's own stamping from the joints behind them."""
    from higherhrnet.methods import heatmaps as heat
    from higherhrnet.methods.bottom_up.grouping import keypoint_indices

    maps = []
    for image in range(4):
        joints = ARRAYS[f"joints_xyv_{image}"]
        indices = keypoint_indices(joints[..., :2] * 2, joints[..., 2] > 0, (64, 64))
        maps.append(heat.draw_gaussians(torch.from_numpy(indices)[None], (64, 64), 2))
    mask = ARRAYS["hm_mask"].astype(np.float32)[:, None]
    return Targets(
        heatmaps=(torch.from_numpy(ARRAYS["hm_gt"]), torch.cat(maps)),
        weights=(
            torch.from_numpy(mask),
            torch.from_numpy(mask.repeat(2, axis=2).repeat(2, axis=3)),
        ),
        indices=(cells_of(ARRAYS["joints"], 32), torch.zeros((4, 0, 17), dtype=torch.int64)),
    )


def test_both_outputs_with_published_factors():
    out0 = torch.cat(
        [torch.from_numpy(ARRAYS[key].astype(np.float32)) for key in ("hm_pred", "tags")], dim=1
    ).requires_grad_()
    out1 = torch.from_numpy(ARRAYS["multi_out1"].astype(np.float32)).requires_grad_()
    losses = BottomUpLoss(heads=(Head(4, 17), Head(2)))(
        Outputs((out0[:, :17], out1), (out0[:, 17:], out1[:, :0])), multi_targets()
    )
    expected = {
        "heatmap/4": ARRAYS["multi_heatmap_loss0"].mean(),
        "heatmap/2": ARRAYS["multi_heatmap_loss1"].mean(),
        "pull/4": ARRAYS["multi_pull0"].mean(),
        "push/4": ARRAYS["multi_push0"].mean(),
    }
    assert losses.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(losses[name].detach(), value, atol=1e-8)
    total = sum(losses.values())
    np.testing.assert_allclose(total.detach(), ARRAYS["multi_total"], atol=1e-8)
    total.backward()
    for i, out in enumerate((out0, out1)):
        gradient = out.grad.numpy()
        np.testing.assert_allclose(
            gradient.sum(dtype=np.float64), ARRAYS[f"multi_grad{i}_sum"], atol=1e-8
        )
        squares = (gradient.astype(np.float64) ** 2).sum()
        np.testing.assert_allclose(squares, ARRAYS[f"multi_grad{i}_sumsq"], rtol=1e-5)
        picked = gradient.ravel()[ARRAYS[f"multi_grad{i}_idx"]]
        np.testing.assert_allclose(picked, ARRAYS[f"multi_grad{i}_val"], atol=1e-9)


def test_nobody_anywhere():
    tags = torch.randn(2, 17, 8, 8, requires_grad=True)
    pull, push = tag_losses(tags, torch.zeros((2, 0, 17), dtype=torch.int64))
    assert pull.tolist() == push.tolist() == [0.0, 0.0]
    (pull + push).sum().backward()
    assert not tags.grad.any()


def test_one_shared_tag_map():
    tags = torch.randn(1, 1, 8, 8)
    indices = torch.tensor([[[3, 9], [20, -1]]])
    pull, push = tag_losses(tags, indices)
    read = tags.flatten()[[3, 9, 20]]
    means = torch.stack([read[:2].mean(), read[2]])
    torch.testing.assert_close(pull[0], (read[:2] - means[0]).square().mean() / 2)
    torch.testing.assert_close(push[0], torch.exp(-((means[0] - means[1]) ** 2)) / 2)
