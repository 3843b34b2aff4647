"""PyTorch peers of the published networks, with the parameter names and the arithmetic of torchvision's."""

from collections import OrderedDict

import torch
from torch import nn
from torch.nn import functional as F  # noqa: N812 (as everybody calls it)


class AlexNet(nn.Module):
    def __init__(self, classes=1000):
        super().__init__()
        self.features = nn.Sequential(
            *(nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2)),
            *(nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
            *(nn.Conv2d(192, 384, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(384, 256, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2)),
        )
        self.avgpool = nn.AdaptiveAvgPool2d(6)
        self.classifier = nn.Sequential(
            *(nn.Dropout(), nn.Linear(256 * 6 * 6, 4096), nn.ReLU()),
            *(nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, classes)),
        )

    def forward(self, x):
        return self.classifier(self.avgpool(self.features(x)).flatten(1))


class VGG(nn.Module):
    def __init__(self, stages=(2, 2, 3, 3, 3), norm=False, classes=1000, width=64, cells=7, units=4096):
        super().__init__()
        layers, before = [], 3
        for stage, convolutions in enumerate(stages):
            after = width * min(2**stage, 8)
            for _ in range(convolutions):
                layers += [nn.Conv2d(before, after, 3, padding=1), *([nn.BatchNorm2d(after)] if norm else []), nn.ReLU()]
                before = after
            layers.append(nn.MaxPool2d(2, 2))
        self.features, self.avgpool = nn.Sequential(*layers), nn.AdaptiveAvgPool2d(cells)
        self.classifier = nn.Sequential(
            *(nn.Linear(before * cells**2, units), nn.ReLU(), nn.Dropout()),
            *(nn.Linear(units, units), nn.ReLU(), nn.Dropout(), nn.Linear(units, classes)),
        )

    def forward(self, x):
        return self.classifier(self.avgpool(self.features(x)).flatten(1))


class ConvNorm(nn.Module):
    def __init__(self, before, after, window, **options):
        super().__init__()
        self.conv = nn.Conv2d(before, after, window, bias=False, **options)
        self.bn = nn.BatchNorm2d(after, eps=0.001)

    def forward(self, x):
        return F.relu(self.bn(self.conv(x)))


class Inception(nn.Module):
    def __init__(self, before, one, reduced3, three, reduced5, five, pooled):
        super().__init__()
        self.branch1 = ConvNorm(before, one, 1)
        self.branch2 = nn.Sequential(ConvNorm(before, reduced3, 1), ConvNorm(reduced3, three, 3, padding=1))
        self.branch3 = nn.Sequential(ConvNorm(before, reduced5, 1), ConvNorm(reduced5, five, 3, padding=1))
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, 1, 1, ceil_mode=True), ConvNorm(before, pooled, 1))

    def forward(self, x):
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], 1)


class Head(nn.Module):
    def __init__(self, before, classes):
        super().__init__()
        self.conv = ConvNorm(before, 128, 1)
        self.fc1, self.fc2 = nn.Linear(2048, 1024), nn.Linear(1024, classes)

    def forward(self, x):
        return self.fc2(F.relu(self.fc1(self.conv(F.adaptive_avg_pool2d(x, 4)).flatten(1))))  # without its dropout of 0.7


class GoogLeNet(nn.Module):
    """Returns its logits, in training those of the auxiliary heads too; the pooled features are not dropped."""

    def __init__(self, classes=1000):
        super().__init__()
        self.conv1 = ConvNorm(3, 64, 7, stride=2, padding=3)
        self.conv2, self.conv3 = ConvNorm(64, 64, 1), ConvNorm(64, 192, 3, padding=1)
        self.inception3a = Inception(192, 64, 96, 128, 16, 32, 32)
        self.inception3b = Inception(256, 128, 128, 192, 32, 96, 64)
        self.inception4a = Inception(480, 192, 96, 208, 16, 48, 64)
        self.inception4b = Inception(512, 160, 112, 224, 24, 64, 64)
        self.inception4c = Inception(512, 128, 128, 256, 24, 64, 64)
        self.inception4d = Inception(512, 112, 144, 288, 32, 64, 64)
        self.inception4e = Inception(528, 256, 160, 320, 32, 128, 128)
        self.inception5a = Inception(832, 256, 160, 320, 32, 128, 128)
        self.inception5b = Inception(832, 384, 192, 384, 48, 128, 128)
        self.aux1, self.aux2 = Head(512, classes), Head(528, classes)
        self.fc = nn.Linear(1024, classes)

    def forward(self, x):
        x = F.max_pool2d(self.conv1(x), 3, 2, ceil_mode=True)
        x = F.max_pool2d(self.conv3(self.conv2(x)), 3, 2, ceil_mode=True)
        x = F.max_pool2d(self.inception3b(self.inception3a(x)), 3, 2, ceil_mode=True)
        x = self.inception4a(x)
        first = self.aux1(x) if self.training else None
        x = self.inception4d(self.inception4c(self.inception4b(x)))
        second = self.aux2(x) if self.training else None
        x = F.max_pool2d(self.inception4e(x), 2, 2, ceil_mode=True)
        x = self.fc(self.inception5b(self.inception5a(x)).mean((2, 3)))
        return (x, first, second) if self.training else x


class Block(nn.Module):
    """Of two 3x3 convolutions, or of a bottleneck with the stride in its 3x3 convolution ("v1.5")."""

    def __init__(self, before, width, stride, bottleneck, widen):
        super().__init__()
        after, wide = width * (4 if bottleneck else 1), width * widen
        shapes = [(before, wide, 1, 1), (wide, wide, 3, stride), (wide, after, 1, 1)]
        for i, (a, b, window, step) in enumerate(shapes if bottleneck else [(before, wide, 3, stride), (wide, after, 3, 1)], 1):
            self.add_module(f"conv{i}", nn.Conv2d(a, b, window, step, window // 2, bias=False))
            self.add_module(f"bn{i}", nn.BatchNorm2d(b))
        self.downsample = None
        if stride > 1 or before != after:
            self.downsample = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        y = self.bn3(self.conv3(F.relu(y))) if hasattr(self, "conv3") else y
        return F.relu(y + (self.downsample(x) if self.downsample else x))


class ResNet(nn.Module):
    def __init__(self, stages, bottleneck=False, widen=1, classes=1000):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
        before = 64
        for stage, blocks in enumerate(stages):
            layer = []
            for i in range(blocks):
                layer.append(Block(before, 64 * 2**stage, 2 if stage and not i else 1, bottleneck, widen))
                before = 64 * 2**stage * (4 if bottleneck else 1)
            self.add_module(f"layer{stage + 1}", nn.Sequential(*layer))
        self.fc = nn.Linear(before, classes)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        return self.fc(self.layer4(self.layer3(self.layer2(self.layer1(x)))).mean((2, 3)))


class Layer(nn.Module):
    def __init__(self, before, growth):
        super().__init__()
        self.norm1, self.conv1 = nn.BatchNorm2d(before), nn.Conv2d(before, 4 * growth, 1, bias=False)
        self.norm2, self.conv2 = nn.BatchNorm2d(4 * growth), nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, x):
        y = self.conv1(F.relu(self.norm1(x)))
        return torch.cat([x, self.conv2(F.relu(self.norm2(y)))], 1)


class DenseNet(nn.Module):
    def __init__(self, stages=(6, 12, 24, 16), growth=32, classes=1000):
        super().__init__()
        maps = 2 * growth
        parts = [("conv0", nn.Conv2d(3, maps, 7, 2, 3, bias=False)), ("norm0", nn.BatchNorm2d(maps)), ("relu0", nn.ReLU())]
        parts.append(("pool0", nn.MaxPool2d(3, 2, 1)))
        for stage, layers in enumerate(stages, 1):
            dense = [(f"denselayer{i + 1}", Layer(maps + i * growth, growth)) for i in range(layers)]
            parts.append((f"denseblock{stage}", nn.Sequential(OrderedDict(dense))))
            maps += layers * growth
            if stage < len(stages):
                conv = nn.Conv2d(maps, maps // 2, 1, bias=False)
                between = [("norm", nn.BatchNorm2d(maps)), ("relu", nn.ReLU()), ("conv", conv), ("pool", nn.AvgPool2d(2, 2))]
                parts.append((f"transition{stage}", nn.Sequential(OrderedDict(between))))
                maps //= 2
        self.features = nn.Sequential(OrderedDict([*parts, ("norm5", nn.BatchNorm2d(maps))]))
        self.classifier = nn.Linear(maps, classes)

    def forward(self, x):
        return self.classifier(F.relu(self.features(x)).mean((2, 3)))


class Tagger(nn.Module):
    """A recurrent module of any kind over ragged sequences, and logits at each of their steps."""

    def __init__(self, kind, inputs, hidden, classes, vocabulary=0, **options):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, inputs) if vocabulary else nn.Identity()
        self.rnn = getattr(nn, kind)(inputs, hidden, batch_first=True, **options)
        self.fc = nn.Linear(hidden * (2 if options.get("bidirectional") else 1), classes)

    def forward(self, x, lengths):
        x = self.embedding(x)
        packed = nn.utils.rnn.pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        y, _ = nn.utils.rnn.pad_packed_sequence(self.rnn(packed)[0], batch_first=True, total_length=x.shape[1])
        return self.fc(y)
