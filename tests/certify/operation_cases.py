"""Every operation that bounds know, alone, in the ways in which people write it."""
# ruff: noqa: B008 - constants are drawn once, when a case is written down

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustness_lib.models import GroupSort

aten = torch.ops.aten
_generator = torch.Generator().manual_seed(0)


JUMPS = {"round", "floor", "ceil", "sign"}  # their intervals leave room for a jump that rounding may miss


def numbers(*shape: int) -> Tensor:
    return torch.randn(shape, generator=_generator, dtype=torch.float64)


@dataclass(frozen=True)
class Case:
    """An operation by its name in exported graphs, on images of this shape. spread: pixels [0, 1] become so many times
    as wide around 0 before. exact: intervals alone give the true range, where the operation is affine."""

    name: str
    call: Callable[[Tensor], Tensor]
    shape: tuple[int, ...]
    spread: float = 8
    exact: bool = True

    def size(self) -> int:
        """Entries of the result for one image."""
        return self.call(torch.rand(2, *self.shape, dtype=torch.float64))[0].numel()


def _with_weights(call: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """A layer with such weights as training could have left: no zeros, no ones."""
    if isinstance(call, nn.Module):
        with torch.no_grad():
            for parameter in call.parameters():
                drawn = torch.randn(parameter.shape, generator=_generator)
                parameter.copy_(drawn.abs().clamp(0.1, 0.9) if isinstance(call, nn.PReLU) else drawn)
            for name, buffer in call.named_buffers():
                if buffer.is_floating_point():
                    drawn = torch.randn(buffer.shape, generator=_generator)
                    buffer.copy_(drawn.exp() if name == "running_var" else drawn)
        call.double().eval()
    return call


class Together(nn.Module):
    """Operations beside each other as one classifier: images to the entries of all results. (To trace each alone would
    take minutes.) in_place: with something written in place before them, for which the exporter spells all operations
    in another way."""

    def __init__(self, cases: Sequence[Case], *, in_place: bool = False) -> None:
        super().__init__()
        self.cases, self.in_place = cases, in_place
        self.modules_of_cases = nn.ModuleList(case.call for case in cases if isinstance(case.call, nn.Module))
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        spread = self.cases[0].spread
        v = spread * x - spread / 2
        if self.in_place:
            v.add_(0.25).sub_(0.25)
        return torch.cat([case.call(v).reshape(v.shape[0], -1) for case in self.cases], 1)

    def parts(self) -> Iterator[tuple[Case, slice]]:
        """Each operation, and where its entries are."""
        start = 0
        for case in self.cases:
            yield case, slice(start, start + case.size())
            start += case.size()


IMAGE, SIGNAL, VECTOR, VIDEO = (4, 6, 6), (4, 9), (6,), (4, 4, 4, 4)


def _cases(shape: tuple[int, ...], spread: float = 8, exact: bool = True,
           **named: list[Callable[[Tensor], Tensor]]) -> list[Case]:
    return [Case(name, _with_weights(call), shape, spread, exact) for name, calls in named.items() for call in calls]


WEIGHTED = [
    *_cases(VECTOR, linear=[nn.Linear(6, 5), nn.Linear(6, 5, bias=False),
                            lambda v, w=numbers(3, 6), b=numbers(3): F.linear(input=v, weight=w, bias=b)],
            matmul=[lambda v, w=numbers(6, 3): v @ w, lambda v, w=numbers(6): v.matmul(w)],
            mm=[lambda v, w=numbers(6, 3): torch.mm(v, w)]),
    *_cases(SIGNAL, linear=[nn.Linear(9, 3)], matmul=[lambda v, w=numbers(9, 3): torch.matmul(v, w)],
            conv1d=[nn.Conv1d(4, 3, 3), nn.Conv1d(4, 4, 4, stride=2, padding=1, dilation=2, groups=2),
                    nn.Conv1d(4, 2, 3, padding="same", bias=False), nn.Conv1d(4, 2, 3, padding=2,
                                                                              padding_mode="circular")],
            conv_transpose1d=[nn.ConvTranspose1d(4, 3, 3, stride=2, padding=1, output_padding=1),
                              lambda v, w=numbers(4, 2, 3): F.conv_transpose1d(v, w, stride=2)]),
    *_cases(IMAGE, conv2d=[
        nn.Conv2d(4, 3, 3), nn.Conv2d(4, 2, (2, 3), stride=(2, 1), padding=(1, 0)), nn.Conv2d(4, 2, 3, dilation=2),
        nn.Conv2d(4, 8, 3, groups=4, padding=1), nn.Conv2d(4, 4, 2, groups=2, stride=2), nn.Conv2d(4, 2, 4,
                                                                                                 padding="same"),
        nn.Conv2d(4, 2, 3, padding="valid"), nn.Conv2d(4, 2, 3, padding=1, padding_mode="circular"),
        lambda v, w=numbers(2, 4, 3, 3), b=numbers(2): F.conv2d(v, w, bias=b, stride=3, padding=2),
        lambda v, w=numbers(3, 2, 3, 3): F.conv2d(v[:, :2], w, padding=1, stride=2),
        lambda v, w=numbers(2, 2, 2, 3): F.conv2d(v, weight=w, groups=2, dilation=2)],
        conv_transpose2d=[nn.ConvTranspose2d(4, 3, 3), nn.ConvTranspose2d(4, 6, 2, stride=2, padding=1, groups=2),
                          nn.ConvTranspose2d(4, 2, 3, dilation=2, stride=3, output_padding=1)]),
    *_cases(IMAGE, exact=False, conv2d=[nn.Conv2d(4, 2, 3, padding=2, padding_mode="reflect"),
                                        nn.Conv2d(4, 2, 3, padding=1, padding_mode="replicate")]),
    *_cases(VIDEO, conv3d=[nn.Conv3d(4, 2, 2, stride=2), nn.Conv3d(4, 2, 3, padding=1, groups=2)],
            conv_transpose3d=[nn.ConvTranspose3d(4, 2, 2)]),
]

NORMALIZING = [
    *_cases(IMAGE, batch_norm=[nn.BatchNorm2d(4), nn.BatchNorm2d(4, affine=False, eps=0.1),
                               lambda v, m=numbers(4), s=numbers(4).exp(): F.batch_norm(v, m, s)]),
    *_cases(VECTOR, batch_norm=[nn.BatchNorm1d(6)]), *_cases(SIGNAL, batch_norm=[nn.BatchNorm1d(4)]),
    *_cases(VIDEO, batch_norm=[nn.BatchNorm3d(4)]),
    *_cases(IMAGE, instance_norm=[nn.InstanceNorm2d(4, affine=True, track_running_stats=True)]),
    *_cases(IMAGE, channel_shuffle=[lambda v: F.channel_shuffle(v, 2)],
            upsample_bicubic2d=[lambda v: F.interpolate(v, scale_factor=2, mode="bicubic")],
            _upsample_bicubic2d_aa=[lambda v: F.interpolate(v, size=(4, 3), mode="bicubic", antialias=True)],
            _upsample_bilinear2d_aa=[lambda v: F.interpolate(v, size=(4, 3), mode="bilinear", antialias=True)],
            _upsample_nearest_exact2d=[lambda v: F.interpolate(v, scale_factor=2, mode="nearest-exact")]),
    *_cases(SIGNAL, _upsample_nearest_exact1d=[lambda v: F.interpolate(v, scale_factor=2, mode="nearest-exact")]),
    *_cases(VIDEO, _upsample_nearest_exact3d=[lambda v: F.interpolate(v, scale_factor=2, mode="nearest-exact")]),
    *_cases(IMAGE, _native_batch_norm_legit_no_training=[
        lambda v, w=numbers(4), b=numbers(4), m=numbers(4), s=numbers(4).exp():
            aten._native_batch_norm_legit_no_training(v, w, b, m, s, 0.1, 1e-3)[0]]),
]

ARITHMETIC = [*_cases(
    IMAGE, exact=False, add=[lambda v: v + v * 2, lambda v: torch.add(v, v[:, :1], alpha=-2)],
    sub=[lambda v: v - v / 3, lambda v: torch.sub(v, v[:, 1:2], alpha=0.5)],
), *_cases(
    IMAGE,
    add=[lambda v: v + 0.1, lambda v: 0.1 + v, lambda v, c=numbers(4, 1, 1): v.add(c, alpha=3), lambda v: v + v,
         lambda v: v + v.flip(1), lambda v, c=numbers(2, 4, 6, 6)[:1]: c + v,
         lambda v, c=numbers(5, 1, 1): v.mean((2, 3), keepdim=True)[:, :1] + c,
         lambda v: v + torch.full((v.shape[0], 1, 1, 1), 0.3, dtype=v.dtype)],
    sub=[lambda v: v - 0.1, lambda v: 0.1 - v, lambda v: v - v.flip(1), lambda v, c=numbers(6): c - v],
    rsub=[lambda v: torch.rsub(v, 0.1), lambda v: torch.rsub(v, v.flip(2), alpha=2)],
    neg=[lambda v: -v, torch.neg], negative=[torch.negative],
    mul=[lambda v: v * -0.1, lambda v, c=numbers(4, 1, 1): c * v, lambda v, c=numbers(6, 1): v.mul(c),
         lambda v, c=numbers(3, 1, 1): v[:, :1] * c, lambda v: v * 0],
    div=[lambda v: v / -3, lambda v, c=numbers(4, 1, 1): torch.div(v, c), lambda v: v.div(0.7)],
    zeros_like=[lambda v: torch.zeros_like(v) + v], ones_like=[lambda v: v - torch.ones_like(v) / 3],
    full_like=[lambda v: torch.full_like(v, 0.1) - v],
)]

SHAPES = [
    *_cases(IMAGE, view=[lambda v: v.view(v.shape[0], -1), lambda v: v.view(-1, 2, 2, 6, 6)],
            reshape=[lambda v: v.reshape(v.size(0), 8, 18), lambda v: torch.reshape(v, (v.shape[0], -1))],
            flatten=[nn.Flatten(), lambda v: torch.flatten(v, 1), lambda v: v.flatten(start_dim=2)],
            unflatten=[nn.Unflatten(1, (2, 2)), lambda v: v.unflatten(-1, (2, 3))],
            unsqueeze=[lambda v: v.unsqueeze(1), lambda v: v[:, None, ..., None]],
            expand=[lambda v: v[:, :1].expand(-1, 3, -1, -1), lambda v: v[:, :, :1].expand(v.shape[0], 4, 5, 6)],
            _unsafe_view=[lambda v: aten._unsafe_view(v, [v.shape[0], 144])],
            repeat=[lambda v: v.repeat(1, 2, 1, 3)],
            mean=[lambda v: v.mean((2, 3)), lambda v: v.mean(-1, keepdim=True), lambda v: torch.mean(v, dim=[1, 2, 3])],
            sum=[lambda v: v.sum(1), lambda v: v.sum((-1, -2), keepdim=True)],
            slice=[lambda v: v[:, 1:3], lambda v: v[..., ::2], lambda v: v[:, :, -2:], lambda v: v[:]],
            select=[lambda v: v[:, 0], lambda v: v.select(2, -1), lambda v: v[..., 3]],
            squeeze=[lambda v: v[:, :1].squeeze(1), lambda v: v[:, :1, :, :1].squeeze((1, 3))],
            permute=[lambda v: v.permute(0, 2, 3, 1), lambda v: torch.permute(v, (0, 3, 1, 2))],
            movedim=[lambda v: v.movedim(1, -1), lambda v: torch.movedim(v, (-1, 1), (2, 3))],
            transpose=[lambda v: v.transpose(1, 2), lambda v: v.transpose(-1, -2)],
            swapaxes=[lambda v: v.swapaxes(-1, 1)], swapdims=[lambda v: v.swapdims(1, 3)],
            narrow=[lambda v: v.narrow(1, 1, 2)], chunk=[lambda v: v.chunk(2, dim=1)[1], lambda v: v.chunk(3, -1)[0]],
            split=[lambda v: torch.cat(v.split(3, dim=2)[::-1], 1)],
            split_with_sizes=[lambda v: v.split([1, 3], dim=1)[1], lambda v: torch.split(v, [2, 4], 3)[0]],
            unbind=[lambda v: v.unbind(1)[2], lambda v: torch.stack(v.unbind(-1), 1)],
            flip=[lambda v: v.flip(1), lambda v: v.flip((-1, 2))],
            index_select=[lambda v, k=torch.tensor([3, 0, 0]): v.index_select(1, k)],
            roll=[lambda v: v.roll(2, 3), lambda v: torch.roll(v, (1, -1), (2, 3))],
            cat=[lambda v: torch.cat((v, v[:, :2]), 1), lambda v: torch.cat([v, v], dim=-1),
                 lambda v: torch.cat([v, torch.ones(v.shape[0], 1, 6, 6, dtype=v.dtype)], 1)],
            stack=[lambda v: torch.stack((v, v.flip(1)), 2), lambda v: torch.stack([v, -v], -1)],
            dropout=[nn.Dropout(), lambda v: F.dropout(v, 0.5, training=False),
                     lambda v: torch.dropout(v, p=0.5, train=False)],
            native_dropout=[lambda v: torch.native_dropout(v, 0.5, False)[0]],
            feature_dropout=[nn.Dropout2d(), lambda v: torch.feature_dropout(v, 0.5, False)],
            alpha_dropout=[nn.AlphaDropout()], feature_alpha_dropout=[nn.FeatureAlphaDropout()],
            contiguous=[lambda v: v.permute(0, 2, 3, 1).contiguous()], clone=[lambda v: v.clone()],
            alias=[lambda v: aten.alias(v)], detach=[lambda v: v.detach()],
            to=[lambda v: v.to(torch.float64), lambda v: v.double(), lambda v: v.to(v.device)],
            _to_copy=[lambda v: aten._to_copy(v, dtype=torch.float64)],
            lift_fresh_copy=[lambda v: aten.lift_fresh_copy(v)]),
]

AVERAGING = [
    *_cases(SIGNAL, avg_pool1d=[nn.AvgPool1d(2), nn.AvgPool1d(3, stride=1, padding=1, count_include_pad=False)],
            adaptive_avg_pool1d=[nn.AdaptiveAvgPool1d(4)], upsample_nearest1d=[nn.Upsample(scale_factor=2)],
            upsample_linear1d=[nn.Upsample(size=5, mode="linear")], reflection_pad1d=[
                lambda v: aten.reflection_pad1d(v, [2, 1])],
            replication_pad1d=[lambda v: aten.replication_pad1d(v, [0, 3])]),
    *_cases(IMAGE, avg_pool2d=[nn.AvgPool2d(2), nn.AvgPool2d(4, stride=3, padding=1, ceil_mode=True),
                               nn.AvgPool2d((2, 3), padding=(0, 1), count_include_pad=False),
                               lambda v: F.avg_pool2d(v, 2, divisor_override=3)],
            adaptive_avg_pool2d=[nn.AdaptiveAvgPool2d(1), nn.AdaptiveAvgPool2d((4, None)),
                                 lambda v: F.adaptive_avg_pool2d(v, (5, 3))],
            _adaptive_avg_pool2d=[lambda v: aten._adaptive_avg_pool2d(v, [4, 4])],
            upsample_nearest2d=[nn.Upsample(scale_factor=2), lambda v: F.interpolate(v, size=(4, 7))],
            upsample_bilinear2d=[nn.Upsample(scale_factor=1.5, mode="bilinear"),
                                 lambda v: F.interpolate(v, size=4, mode="bilinear", align_corners=True)],
            pixel_shuffle=[nn.PixelShuffle(2)], pixel_unshuffle=[nn.PixelUnshuffle(3)],
            pad=[lambda v: F.pad(v, (1, 2, 0, 1)), lambda v: F.pad(v, (1, 1, 1, 1), mode="reflect"),
                 lambda v: F.pad(v, (2, 0), value=0.1), lambda v: F.pad(v, (-1, 1)), nn.ZeroPad2d(1),
                 nn.ReflectionPad2d(2), nn.ReplicationPad2d(1), nn.ConstantPad2d(1, -0.7), nn.CircularPad2d(2)],
            constant_pad_nd=[lambda v: torch.constant_pad_nd(v, (1, 0, 2, 0), 0.1)],
            reflection_pad2d=[lambda v: aten.reflection_pad2d(v, [1, 2, 0, 1])],
            replication_pad2d=[lambda v: aten.replication_pad2d(v, [1, 2, 0, 1])]),
    *_cases(VIDEO, avg_pool3d=[nn.AvgPool3d(2, stride=1)], adaptive_avg_pool3d=[nn.AdaptiveAvgPool3d((1, 3, 2))],
            _adaptive_avg_pool3d=[lambda v: aten._adaptive_avg_pool3d(v, [2, 3, 1])],
            upsample_nearest3d=[nn.Upsample(scale_factor=2)],
            upsample_trilinear3d=[nn.Upsample(size=3, mode="trilinear")]),
]

AFFINE = [*WEIGHTED, *NORMALIZING, *ARITHMETIC, *SHAPES, *AVERAGING]

POINTWISE = [
    *_cases(IMAGE, relu=[nn.ReLU(), F.relu, torch.relu, lambda v: v.relu()],
            leaky_relu=[nn.LeakyReLU(), nn.LeakyReLU(0.4), lambda v: F.leaky_relu(v, 0.0),
                        lambda v: F.leaky_relu(v, negative_slope=1.0)],
            prelu=[nn.PReLU(), nn.PReLU(4), lambda v, a=torch.tensor([0.3], dtype=torch.float64): F.prelu(v, a)],
            elu=[nn.ELU(), nn.ELU(0.3), nn.ELU(2.5), lambda v: F.elu(v, alpha=1.7)],
            celu=[nn.CELU(1.5), nn.CELU(0.4), F.celu], selu=[nn.SELU(), F.selu],
            gelu=[nn.GELU(), F.gelu], silu=[nn.SiLU(), F.silu],
            sigmoid=[nn.Sigmoid(), torch.sigmoid, lambda v: v.sigmoid()],
            tanh=[nn.Tanh(), torch.tanh, lambda v: v.tanh()],
            mish=[nn.Mish()], softplus=[nn.Softplus(), nn.Softplus(beta=3), nn.Softplus(2.0, 30.0), F.softplus,
                      lambda v: F.softplus(v, beta=0.5, threshold=25)],
            relu6=[aten.relu6], hardtanh=[nn.ReLU6(), F.relu6, nn.Hardtanh(), nn.Hardtanh(-0.5, 2.5), F.hardtanh],
            clamp=[lambda v: v.clamp(-1, 2), lambda v: torch.clamp(v, min=-1.5), lambda v: v.clamp(0.3, 0.3)],
            clip=[lambda v: v.clip(max=0.5), lambda v: torch.clip(v, -2, 1)],
            clamp_min=[lambda v: torch.clamp_min(v, -0.3)], clamp_max=[lambda v: torch.clamp_max(v, 0.3)],
            abs=[torch.abs, lambda v: v.abs(), abs], square=[torch.square, lambda v: v.square()],
            pow=[lambda v: v**2, lambda v: torch.pow(v, 2)],
            mul=[lambda v: v * v, lambda v: torch.mul(v, v)], exp=[torch.exp, lambda v: (v / 3).exp()],
            hardswish=[nn.Hardswish(), F.hardswish], log_sigmoid=[nn.LogSigmoid(), F.logsigmoid],
            hardsigmoid=[nn.Hardsigmoid(), F.hardsigmoid], round=[torch.round, lambda v: v.round(decimals=1)],
            floor=[torch.floor], ceil=[lambda v: v.ceil()], sign=[torch.sign]),
    *_cases(IMAGE, spread=60, silu=[nn.SiLU()], gelu=[nn.GELU()], sigmoid=[nn.Sigmoid()], tanh=[nn.Tanh()],
            softplus=[nn.Softplus()], elu=[nn.ELU()], log_sigmoid=[nn.LogSigmoid()], hardswish=[nn.Hardswish()]),
]

POOLING = [
    *_cases(SIGNAL, max_pool1d=[nn.MaxPool1d(2), nn.MaxPool1d(3, stride=2, padding=1, dilation=2, ceil_mode=True),
                                lambda v: F.max_pool1d(v, kernel_size=4)],
            max_pool1d_with_indices=[lambda v: aten.max_pool1d_with_indices(v, [2])[0]],
            adaptive_max_pool1d=[nn.AdaptiveMaxPool1d(4)]),
    *_cases(IMAGE, max_pool2d=[nn.MaxPool2d(2), nn.MaxPool2d(3, stride=2, padding=1), nn.MaxPool2d((1, 2)),
                               nn.MaxPool2d(2, dilation=2, stride=1), nn.MaxPool2d(4, stride=3, ceil_mode=True),
                               nn.MaxPool2d((3, 2), stride=(1, 3), padding=(1, 0)), nn.MaxPool2d(1),
                               lambda v: F.max_pool2d(v, kernel_size=2, stride=1)],
            max_pool2d_with_indices=[lambda v: F.max_pool2d(v, 2, return_indices=True)[0]],
            adaptive_max_pool2d=[nn.AdaptiveMaxPool2d((4, 5)), nn.AdaptiveMaxPool2d(1)]),
    *_cases(VIDEO, max_pool3d=[nn.MaxPool3d(2)], max_pool3d_with_indices=[
        lambda v: F.max_pool3d(v, 2, return_indices=True)[0]], adaptive_max_pool3d=[nn.AdaptiveMaxPool3d((1, 2, 3))]),
]

SORTING = [*_cases(VECTOR, sort=[lambda v: v.sort(1).values, lambda v: torch.sort(v, descending=True)[0]]),
           *_cases(IMAGE, sort=[lambda v: v.sort(dim=-1, stable=True)[0], GroupSort(), GroupSort(4)])]

PRODUCTS = _cases(IMAGE, mul=[lambda v: v * v.flip(1), lambda v: v * v[:, :1], lambda v: v[:, :1, :, :1] * v,
                              lambda v: v.mul(torch.sigmoid(v.mean((2, 3), keepdim=True)))])

BENT = [*POINTWISE, *POOLING, *SORTING, *PRODUCTS]
ALL = [*AFFINE, *BENT]

IN_PLACE = _cases(IMAGE, relu=[nn.ReLU(inplace=True), torch.relu_, lambda v: v.relu_()],
                  leaky_relu=[nn.LeakyReLU(0.4, inplace=True)], elu=[nn.ELU(inplace=True)],
                  silu=[nn.SiLU(inplace=True)], hardtanh=[nn.ReLU6(inplace=True)], add=[lambda v: v.add_(0.1)],
                  mul=[lambda v: v.mul_(-2)], clamp=[lambda v: v.clamp_(-1, 1)], sub=[lambda v: v.sub_(v.flip(1))])
IN_PLACE = [replace(case, call=lambda v, call=case.call: call(v.clone())) for case in IN_PLACE]


def groups(cases: Sequence[Case]) -> list[list[Case]]:
    """Of one shape and spread each, and not too many, for the memory's sake."""
    found: dict[tuple[object, ...], list[Case]] = {}
    for case in cases:
        found.setdefault((case.shape, case.spread), []).append(case)
    return [group[start:start + 40] for group in found.values() for start in range(0, len(group), 40)]
