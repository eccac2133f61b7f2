"""ExquisiteNetV2 (Zhou and Su, 2022): a small image classifier and the optimizer that trains it.

518,230 parameters with 3 input channels and 10 classes. Every class and function below is used in training.
"""

import torch
from torch import nn
from torch.nn import functional as F


def make_optimizer(model):
    """Returns the optimizer of the model's parameters; each group's lr is the peak of the schedule."""
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4)


class SELayer(nn.Module):
    """Scales each channel by a gate in (0, 1): N x C x H x W -> N x C x H x W."""

    def __init__(self, channels):
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, x):
        gate = torch.sigmoid(self.norm(x.mean(dim=(2, 3))))
        return x * gate[:, :, None, None]


class FCT(nn.Module):
    """Stem that halves an even H and W: N x inputs x H x W -> N x outputs x H/2 x W/2."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.depthwise = nn.Conv2d(inputs, inputs, 4, stride=2, padding=1, groups=inputs, bias=False)
        self.pointwise = nn.Conv2d(3 * inputs, outputs, 1, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x):
        largest = F.max_pool2d(x, 2, ceil_mode=True)
        smallest = -F.max_pool2d(-x, 2, ceil_mode=True)
        x = torch.cat([largest, smallest, self.depthwise(x)], dim=1)
        return self.norm(self.pointwise(x))


class DFSEB(nn.Module):
    """Two depthwise stages, both added to the input: N x C x H x W -> N x C x H x W."""

    def __init__(self, channels, kernel=3):
        super().__init__()
        self.pointwise1 = nn.Conv2d(channels, channels, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.depthwise1 = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels)
        self.gate = SELayer(channels)
        self.pointwise2 = nn.Conv2d(channels, channels, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.depthwise2 = nn.Conv2d(channels, channels, kernel, padding=kernel // 2, groups=channels)

    def forward(self, x):
        y = F.silu(self.norm1(self.pointwise1(x)))
        y = self.gate(self.depthwise1(y)) + x
        y = F.hardswish(self.norm2(self.pointwise2(y)))
        return self.depthwise2(y) + x


class EVE(nn.Module):
    """Halves H and W by maximum and minimum: N x inputs x H x W -> N x outputs x ceil(H/2) x ceil(W/2)."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.pointwise = nn.Conv2d(2 * inputs, outputs, 1, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x):
        largest = F.max_pool2d(x, 2, ceil_mode=True)
        smallest = -F.max_pool2d(-x, 2, ceil_mode=True)
        return self.norm(self.pointwise(torch.cat([largest, smallest], dim=1)))


class ME(nn.Module):
    """Halves H and W by maximum: N x inputs x H x W -> N x outputs x ceil(H/2) x ceil(W/2)."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.pointwise = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x):
        return self.norm(self.pointwise(F.max_pool2d(x, 2, ceil_mode=True)))


class DW(nn.Module):
    """Depthwise tail: N x C x H x W -> N x C x H x W."""

    def __init__(self, channels):
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)

    def forward(self, x):
        return F.hardswish(self.depthwise(x))


class Classifier(nn.Module):
    """Pools each channel to one number and maps them to logits: N x C x H x W -> N x classes."""

    def __init__(self, channels, classes):
        super().__init__()
        self.dropout = nn.Dropout(0.5)
        self.linear = nn.Linear(channels, classes)

    def forward(self, x):
        return self.linear(self.dropout(x.mean(dim=(2, 3))))


class ExquisiteNetV2(nn.Module):
    """The whole network, from images to logits: N x channels x H x W -> N x classes."""

    def __init__(self, classes=10, channels=3):
        super().__init__()
        self.features = nn.Sequential(
            FCT(channels, 12),
            DFSEB(12),
            EVE(12, 48),
            DFSEB(48),
            ME(48, 96),
            DFSEB(96),
            ME(96, 192),
            DFSEB(192),
            ME(192, 384),
            DFSEB(384),
            DW(384),
        )
        self.classifier = Classifier(384, classes)

    def forward(self, x):
        return self.classifier(self.features(x))
