"""What a careful researcher writes in plain torch: networks and a PGD step.

The networks have the parameters of those in networks.py, layer for layer. The
loop freezes the weights during the attack, takes gradients of the images
alone, and keeps tensors where they are. It is tried in both memory formats,
with and without `torch.compile` for the attack and for the training; the form
whose step is the fastest is the one that others are compared with.
"""

import contextlib
import functools
import itertools
import time

import numpy as np
import torch
from torch import nn
from torch.nn import functional

EPSILON = 4 / 255


def _conv(inputs, outputs, kernel=3, stride=1, groups=1):
    padding = (kernel - 1) // 2
    return nn.Conv2d(
        inputs, outputs, kernel, stride, padding, groups=groups, bias=False
    )


def _normalised(*conv, activation=nn.ReLU):
    conv = _conv(*conv)
    return [conv, nn.BatchNorm2d(conv.out_channels), activation()]


class _Classifier(nn.Module):
    """Normalises pixels; averages features of rank 4; ends in logits."""

    def __init__(self, features, width, classes):
        super().__init__()
        self.features = features
        self.head = nn.Linear(width, classes)

    def forward(self, pixels):
        features = self.features(pixels / 127.5 - 1.0)
        if features.ndim == 4:
            features = features.mean((2, 3))
        return self.head(features)


def _small():
    layers, inputs = [], 3
    for width, stride in ((32, 1), (64, 2), (64, 1), (128, 2)):
        conv, *others = _normalised(inputs, width, 3, stride)
        if stride == 2:
            # As Keras pads "same", so that weights can be carried over.
            layers.append(nn.ZeroPad2d((0, 1, 0, 1)))
            conv.padding = (0, 0)
        layers += [conv, *others]
        inputs = width
    return nn.Sequential(*layers), inputs


def _mobilenet(alpha=0.75):
    """Howard et al., arXiv 1704.04861."""
    plan = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)]
    plan += [(512, 1)] * 5 + [(1024, 2), (1024, 1)]
    inputs = int(32 * alpha)
    layers = _normalised(3, inputs, 3, 2, activation=nn.ReLU6)
    for width, stride in plan:
        width = int(width * alpha)
        layers += _normalised(
            inputs, inputs, 3, stride, inputs, activation=nn.ReLU6
        )
        layers += _normalised(inputs, width, 1, activation=nn.ReLU6)
        inputs = width
    return nn.Sequential(*layers), inputs


class _PreActivation(nn.Module):
    """Bottleneck block of He et al., arXiv 1603.05027."""

    def __init__(self, inputs, width, stride, shortcut):
        super().__init__()
        self.first = nn.Sequential(nn.BatchNorm2d(inputs), nn.ReLU())
        self.shortcut = (
            _conv(inputs, 4 * width, 1, stride) if shortcut else None
        )
        self.rest = nn.Sequential(
            *_normalised(inputs, width, 1),
            *_normalised(width, width, 3, stride),
            _conv(width, 4 * width, 1),
        )

    def forward(self, x):
        first = self.first(x)
        shortcut = x if self.shortcut is None else self.shortcut(first)
        return shortcut + self.rest(first)


def _resnet_stage2():
    layers = [*_normalised(3, 64, 7, 2), _conv(64, 64, 1)]
    layers += [nn.MaxPool2d(3, 2, 1)]
    inputs = 64
    for width, blocks, stride in ((64, 3, 1), (128, 4, 2)):
        for index in range(blocks):
            layers.append(
                _PreActivation(inputs, width, 1 if index else stride, not index)
            )
            inputs = 4 * width
    layers += [nn.BatchNorm2d(inputs), nn.ReLU()]
    return nn.Sequential(*layers), inputs


class _Bottleneck(nn.Module):
    """Block of He et al., arXiv 1512.03385, with biases as Keras has them."""

    def __init__(self, inputs, width, stride, shortcut):
        super().__init__()
        self.shortcut = nn.Identity()
        if shortcut:
            self.shortcut = nn.Sequential(
                *self._biased(inputs, 4 * width, 1, stride)
            )
        self.rest = nn.Sequential(
            *self._biased(inputs, width, 1, stride),
            nn.ReLU(),
            *self._biased(width, width, 3, 1),
            nn.ReLU(),
            *self._biased(width, 4 * width, 1, 1),
        )

    @staticmethod
    def _biased(inputs, outputs, kernel, stride):
        conv = nn.Conv2d(inputs, outputs, kernel, stride, (kernel - 1) // 2)
        return conv, nn.BatchNorm2d(outputs)

    def forward(self, x):
        return functional.relu(self.shortcut(x) + self.rest(x))


def _resnet50():
    layers = [nn.Conv2d(3, 64, 7, 2, 3), nn.BatchNorm2d(64), nn.ReLU()]
    layers += [nn.MaxPool2d(3, 2, 1)]
    inputs = 64
    for width, blocks, stride in (
        (64, 3, 1),
        (128, 4, 2),
        (256, 6, 2),
        (512, 3, 2),
    ):
        for index in range(blocks):
            layers.append(
                _Bottleneck(inputs, width, 1 if index else stride, not index)
            )
            inputs = 4 * width
    return nn.Sequential(*layers), inputs


class _ViT(nn.Module):
    """Dosovitskiy et al., arXiv 2010.11929, by torch's own encoder."""

    def __init__(self, image_size, depth, width, heads, patch=16):
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, patch)
        places = (image_size // patch) ** 2 + 1
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.positions = nn.Parameter(0.02 * torch.randn(1, places, width))
        layer = nn.TransformerEncoderLayer(
            width,
            heads,
            4 * width,
            dropout=0.0,
            activation="gelu",
            layer_norm_eps=1e-6,
            batch_first=True,
            norm_first=True,
        )
        self.encoder = nn.TransformerEncoder(
            layer, depth, nn.LayerNorm(width, eps=1e-6), False
        )

    def forward(self, images):
        x = self.patches(images).flatten(2).mT
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1)
        return self.encoder(x + self.positions)[:, 0]


def network(name: str, image_size: int, classes: int) -> nn.Module:
    """Builds a network by its name."""
    makers = {
        "small": _small,
        "mobilenet": _mobilenet,
        "resnet_stage2": _resnet_stage2,
        "resnet50": _resnet50,
        "vit_tiny": lambda: (_ViT(image_size, 12, 192, 3), 192),
        "vit_base": lambda: (_ViT(image_size, 12, 768, 12), 768),
    }
    return _Classifier(*makers[name](), classes)


def with_weights_of_keras(
    name: str, image_size: int, weights: list
) -> nn.Module:
    """Builds a network with the weights of that of networks.py.

    Args:
        name: `"small"`, `"mobilenet"` or `"vit_tiny"`.
        image_size: Height and width.
        weights: Arrays, as `get_weights` of the Keras model returns them.
    """
    made = network(name, image_size, len(weights[-1]))
    found = [torch.from_numpy(np.array(each)) for each in weights]
    take = iter(found[:-2]).__next__
    fill = _fill_vit if name == "vit_tiny" else _fill_convolutions
    with torch.no_grad():
        fill(made.features, take)
        made.head.weight.copy_(found[-2].T)
        made.head.bias.copy_(found[-1])
    return made


def _fill_convolutions(features, take):
    for each in features.modules():
        if isinstance(each, nn.Conv2d):
            order = (3, 2, 0, 1) if each.groups == 1 else (2, 3, 0, 1)
            each.weight.copy_(take().permute(order))
            if each.stride == (2, 2) and each.padding == (1, 1):
                # Keras pads an even size below and to the right.
                each.padding = (0, 0)
                each.register_forward_pre_hook(
                    lambda _, given: functional.pad(given[0], (0, 1, 0, 1))
                )
        elif isinstance(each, nn.BatchNorm2d):
            each.eps = 1e-3
            for slot in (
                each.weight,
                each.bias,
                each.running_mean,
                each.running_var,
            ):
                slot.copy_(take())


def _fill_vit(features, take):
    def fill_norm(norm):
        norm.weight.copy_(take())
        norm.bias.copy_(take())

    def fill_linear(linear):
        linear.weight.copy_(take().reshape(linear.in_features, -1).T)
        linear.bias.copy_(take())

    features.token.copy_(take())
    features.patches.weight.copy_(take().permute(3, 2, 0, 1))
    features.patches.bias.copy_(take())
    features.positions.copy_(take()[None])
    for layer in features.encoder.layers:
        attention = layer.self_attn
        width = attention.embed_dim
        fill_norm(layer.norm1)
        # Queries, keys and values.
        for part in range(3):
            rows = slice(part * width, (part + 1) * width)
            attention.in_proj_weight[rows] = take().reshape(width, width).T
            attention.in_proj_bias[rows] = take().flatten()
        fill_linear(attention.out_proj)
        fill_norm(layer.norm2)
        fill_linear(layer.linear1)
        fill_linear(layer.linear2)
    fill_norm(features.encoder.norm)


class Loop:
    """A network with its optimizer, and the steps that train it.

    Args:
        model: The network.
        attack_mode: `"inference"` or `"training"`: its mode under attack.
        bf16: Whether to compute in bfloat16 (autocast).
        attacked: The network as the attack calls it: itself or compiled.
        trained: The network as training calls it, likewise.
    """

    def __init__(self, model, attack_mode, bf16, attacked, trained):
        self.model = model
        self.parameters = list(model.parameters())
        self.optimizer = torch.optim.SGD(self.parameters, 1e-4)
        self.attack_mode = attack_mode
        self.bf16 = bf16
        self.attacked = attacked
        self.trained = trained

    def loss(self, network, images, labels, reduction):
        """Cross-entropy, in bfloat16 where that is asked for."""
        precision = contextlib.nullcontext()
        if self.bf16:
            precision = torch.autocast(images.device.type, torch.bfloat16)
        with precision:
            logits = network(images)
        return functional.cross_entropy(
            logits.float(), labels, reduction=reduction
        )

    def plain_step(self, images, labels):
        """One step of standard fine-tuning."""
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss(self.trained, images, labels, "mean")
        loss.backward()
        self.optimizer.step()
        return loss.item()

    def attack(self, images, labels, steps):
        """PGD on pixels, with the weights out of the graph."""
        self.model.train(self.attack_mode == "training")
        for each in self.parameters:
            each.requires_grad_(False)
        radius = 255 * EPSILON
        low = (images - radius).clamp_(min=0)
        high = (images + radius).clamp_(max=255)
        moved = images + torch.empty_like(images).uniform_(-radius, radius)
        moved = moved.clamp_(0, 255)
        for _ in range(steps):
            moved.requires_grad_(True)
            loss = self.loss(self.attacked, moved, labels, "sum")
            (gradient,) = torch.autograd.grad(loss, moved)
            with torch.no_grad():
                moved = moved + 2.5 / steps * radius * gradient.sign()
                moved = torch.minimum(torch.maximum(moved, low), high)
        for each in self.parameters:
            each.requires_grad_(True)
        return moved.detach()

    def step(self, images, labels, steps):
        """One step of adversarial training."""
        return self.plain_step(self.attack(images, labels, steps), labels)


def tune():
    """What everybody sets who measures torch."""
    torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True


def variants(
    name, image_size, batch_size, classes, counts, typical, attack_mode, bf16
):
    """The form of the loop that is the fastest at a typical K, and facts."""
    tune()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    generator = torch.Generator().manual_seed(0)
    images = 255 * torch.rand(
        (batch_size, 3, image_size, image_size), generator=generator
    )
    labels = torch.randint(classes, (batch_size,), generator=generator)
    labels = labels.to(device)

    # As it is, and in channels_last, where attack and training are compiled or
    # not, whichever suits each.
    forms = {}
    for layout in (torch.contiguous_format, torch.channels_last):
        model = network(name, image_size, classes)
        model = model.to(device, memory_format=layout)
        batch = images.to(device, memory_format=layout), labels
        compiled = torch.compile(model)
        for attacked, trained in itertools.product((model, compiled), repeat=2):
            label = [str(layout).removeprefix("torch.")]
            label += ["compiled attack"] if attacked is compiled else []
            label += ["compiled training"] if trained is compiled else []
            loop = Loop(model, attack_mode, bf16, attacked, trained)
            forms[", ".join(label)] = loop, batch
    plain = {
        form: _seconds(functools.partial(loop.plain_step, *batch))
        for form, (loop, batch) in forms.items()
    }
    steps = {
        form: _seconds(functools.partial(loop.step, *batch, typical))
        for form, (loop, batch) in forms.items()
    }
    best = min(steps, key=steps.get)
    loop, batch = forms[best]
    plain_loop, plain_batch = forms[min(plain, key=plain.get)]
    found = {
        "loop plain": functools.partial(plain_loop.plain_step, *plain_batch)
    }
    for count in counts:
        found[f"loop {count}"] = functools.partial(loop.step, *batch, count)
    facts = {
        "form": best,
        "plain over best": plain[best] / min(plain.values()),
        "parameters": sum(each.numel() for each in loop.parameters),
        "flops": flops(network(name, image_size, classes), image_size),
    }
    return found, facts


def _seconds(function):
    """The best of three, after two that compile both modes."""
    times = []
    for _ in range(5):
        started = time.perf_counter()
        function()
        times.append(time.perf_counter() - started)
    return min(times[2:])


def flops(model, image_size: int) -> int:
    """Floating-point operations of one forward pass of one image."""
    from torch.utils.flop_counter import FlopCounterMode

    # Training mode and plain attention: the fused forms are not counted.
    plainly = torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH)
    counter = FlopCounterMode(display=False)
    with counter, plainly, torch.no_grad():
        model.train()(torch.zeros(2, 3, image_size, image_size))
    return counter.get_total_flops() // 2
