"""Base networks, each safe under second-order gradients through `torch.func.vmap`.

`torch.nn.LayerNorm` is not: torch 2.13 gives silently wrong second-order gradients for it under vmap, so the
normalisation here is written in elementary operations. A test compares every network here with a plain loop.
"""

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import affine_grid, grid_sample


class LayerNorm(nn.Module):
    """Layer normalisation over the last axis (Ba et al. 2016), from operations that vmap differentiates well."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(width)), nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        # Eq. 4: (x - mean) / sqrt(variance + 1e-5) * weight + bias
        centred = x - x.mean(-1, keepdim=True)
        return centred * (centred.square().mean(-1, keepdim=True) + 1e-5).rsqrt() * self.weight + self.bias


class MLP(nn.Module):
    """A multi-layer perceptron with ReLU; `head` is its last, linear layer.

    Args:
        context: width of a learned constant that is appended to the input: with it a single gradient step can shift
            every first-layer unit at once (the bias transformation of Finn et al. 2017, "One-Shot Visual Imitation
            Learning via Meta-Learning", section 4.1).
        normalise: put a `LayerNorm` before each ReLU.
    """

    def __init__(
        self, inputs: int, outputs: int, hidden: Sequence[int], context: int = 0, normalise: bool = False
    ) -> None:
        super().__init__()
        self.context = nn.Parameter(torch.zeros(context)) if context else None
        widths = [inputs + context, *hidden]
        layers: list[nn.Module] = []
        for wide, narrow in pairwise(widths):
            layers += [nn.Linear(wide, narrow), *([LayerNorm(narrow)] if normalise else []), nn.ReLU()]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(widths[-1], outputs)

    def forward(self, x: Tensor) -> Tensor:
        if self.context is not None:
            x = torch.cat([x, self.context.expand(*x.shape[:-1], -1)], -1)
        return self.head(self.body(x))


class ConvNet(nn.Module):
    """A convolutional network for small grey images; `head` is its last, linear layer.

    Each block is a 3x3 convolution, normalisation, ReLU and 2x2 max-pooling, as is usual for Omniglot (Vinyals et al.
    2016); but the first is a 5x5 convolution with stride 2 instead, which halves the cost of the whole.

    Args:
        image: height and width; an input is such an image, flattened.
        channels: of each block.
        batch_statistics: normalise each channel by the statistics of all the images that come in one call, as batch
            normalisation does in training. Predictions then depend on the other queries (they are *transductive*), and
            one query alone cannot be recognised. By default each image is normalised alone.
        bfloat16: round the factors and the result of each convolution but the first to bfloat16, which about halves
            its time on processors that know the format; parameters and the head stay as they are.
        num_augmentations: copies of an image whose outputs are averaged, all but the first `distorted` a little, each
            by amounts that are always the same. It costs as many times the work; meant for using a network that was
            trained on distorted images.
    """

    amounts: Tensor

    def __init__(
        self,
        image: tuple[int, int],
        outputs: int,
        channels: Sequence[int],
        batch_statistics: bool = False,
        bfloat16: bool = False,
        num_augmentations: int = 1,
    ) -> None:
        super().__init__()
        amounts = 2 * torch.rand(6, num_augmentations, generator=torch.Generator().manual_seed(0)) - 1
        amounts[:, 0] = 0.0
        self.register_buffer("amounts", amounts, persistent=False)
        self.image, convolution = image, Bfloat16Conv2d if bfloat16 else nn.Conv2d
        layers: list[nn.Module] = []
        for i, (few, many) in enumerate(pairwise([1, *channels])):
            layers += [convolution(few, many, 3, padding=1) if i else nn.Conv2d(few, many, 5, stride=2, padding=2)]
            layers += [BatchStatistics(many) if batch_statistics else nn.GroupNorm(1, many), nn.ReLU()]
            layers += [nn.MaxPool2d(2, ceil_mode=True)] if i else []
        self.body = nn.Sequential(*layers, nn.Flatten())
        height, width = (math.ceil(side / 2 ** len(channels)) for side in image)
        self.head = nn.Linear(channels[-1] * height * width, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Flattened images [..., height * width] to [..., outputs]."""
        pictures = x.reshape(-1, 1, *self.image)
        output = self.head(self.body(pictures))
        for amounts in self.amounts[:, 1:].unbind(1):
            output = output + self.head(self.body(distorted(pictures, amounts[:, None], "border")))
        return (output / self.amounts.shape[1]).reshape(*x.shape[:-1], -1)


def distorted(pictures: Tensor, amounts: Tensor, outside: str = "zeros") -> Tensor:
    """Pictures [picture, 1, height, width], each turned, sheared, scaled and shifted a little.

    Args:
        amounts: [6, picture], or [6, 1] for the same of all: turn (1 is 6 degrees), shear (0.1), scale of width and of
            height (8 %), shift to the right and down (8 % of the side).
        outside: values of pixels from outside of the picture: 'zeros', or those of the 'border'.
    """
    turn, shear, wide, high, right, down = amounts.expand(6, len(pictures)).unbind()
    cos, sin = torch.cos(turn * torch.pi / 30), torch.sin(turn * torch.pi / 30)
    wide, high, shear = 1 + 0.08 * wide, 1 + 0.08 * high, 0.1 * shear
    # rotation times shear times scales, in coordinates from -1 to 1, so that 8 % of a side is 0.16
    theta = torch.stack(
        [cos * wide, (cos * shear - sin) * high, 0.16 * right, sin * wide, (sin * shear + cos) * high, 0.16 * down], -1
    )
    grid = affine_grid(theta.reshape(-1, 2, 3), list(pictures.shape), align_corners=False)
    return grid_sample(pictures, grid, padding_mode=outside, align_corners=False)


class ConvClassifier(nn.Module):
    """Logits of images from a network that embeds them; `head` is its last, linear layer.

    Embeddings are normalised before the head, whose rows all start at zero. A gradient step then makes each row a mean
    of embeddings, and the class with the largest cosine is recognised. Embeddings begin with a length of `width`, so
    that a few small steps of the head suffice, which leave the layers before it nearly as they are.
    """

    def __init__(self, embedding: ConvNet, outputs: int) -> None:
        super().__init__()
        self.embedding, width = embedding, embedding.head.out_features
        self.normalise, self.head = LayerNorm(width), nn.Linear(width, outputs)
        nn.init.constant_(self.normalise.weight, math.sqrt(width))
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.normalise(self.embedding(x)))


class Bfloat16Conv2d(nn.Conv2d):
    """A convolution whose input, weights and result are rounded to bfloat16, between tensors of the usual type."""

    def forward(self, x: Tensor) -> Tensor:
        assert self.bias is not None
        rounded = (t.to(torch.bfloat16) for t in (x, self.weight, self.bias))
        return self._conv_forward(*rounded).to(x.dtype)


class BatchStatistics(nn.Module):
    """Batch normalisation (Ioffe & Szegedy 2015, Algorithm 1) by the batch at hand, always: no running statistics.

    Images are [image, channel, height, width].
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(channels)), nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        # Algorithm 1: (x - mean) / sqrt(variance + 1e-5) * weight + bias, each channel over all images and pixels
        centred = x - x.mean((0, 2, 3), keepdim=True)
        scaled = centred * (centred.square().mean((0, 2, 3), keepdim=True) + 1e-5).rsqrt()
        return scaled * self.weight[:, None, None] + self.bias[:, None, None]


def unit(vectors: Tensor) -> Tensor:
    """Vectors [..., width] scaled to length 1, so that a product of two is their cosine; zeros stay zero."""
    return vectors * (vectors.square().sum(-1, keepdim=True) + 1e-12).rsqrt()


def masked_softmax(scores: Tensor, real: Tensor) -> Tensor:
    """Softmax over the last axis where `real` is 1; zero elsewhere, and everywhere if nothing is real."""
    return scores.masked_fill(real == 0, torch.finfo(scores.dtype).min).softmax(-1) * real
