"""MODELS: name -> Flax module, or a partial of one. The fields of a module are its flags on the command line.

To add a model, write its module in a file of its own, add one line to MODELS, and write a flag file. A module's `__call__` takes
`(images, train=False)` and, if it has dropout, `dropout_rate=0.0`. It may declare two fields that are not flags: `num_classes`,
and `axis_name`, the mapped axis of a split batch. An attribute `image_size` is the size of the images that it was designed for.
While it trains, it may sow logits in the collection "auxiliary"; their loss, times the field `auxiliary_weight`, is added to the
model's own.
"""

import functools
import inspect
import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

import flax.linen as nn

from percept_jax.errors import UsageError
from percept_jax.models.alexnet import AlexNet
from percept_jax.models.cnn import CNN
from percept_jax.models.connectivity import Connectivity
from percept_jax.models.densenet import DenseNet
from percept_jax.models.googlenet import GoogLeNet
from percept_jax.models.lenet import LeNet5, LeNet5Of1998
from percept_jax.models.mlp import MLP, Linear
from percept_jax.models.recurrent import EncoderDecoder, LSTMCell, Recurrent
from percept_jax.models.resnet import ResNet
from percept_jax.models.vgg import VGG
from percept_jax.validation import check_type, check_within, is_union, unknown

_SINGLE_TOWER = {"single_tower": True, "features": (64, 192, 384, 256, 256), "groups": 1, "norm": "none"}
_CIFAR = functools.partial(ResNet, stem="small", width=16, shortcut="A")

MODELS: dict[str, Callable[..., nn.Module]] = {
    "linear": Linear,
    "mlp": MLP,
    "cnn": CNN,
    "lenet5": LeNet5,
    "lenet5_1998": LeNet5Of1998,
    "connectivity": Connectivity,
    "alexnet": AlexNet,
    "alexnet_single_tower": functools.partial(AlexNet, **_SINGLE_TOWER, initializer="he_normal"),
    "vgg11": functools.partial(VGG, stages=(1, 1, 2, 2, 2)),
    "vgg13": functools.partial(VGG, stages=(2, 2, 2, 2, 2)),
    "vgg16": functools.partial(VGG, stages=(2, 2, 3, 3, 3)),
    "vgg19": functools.partial(VGG, stages=(2, 2, 4, 4, 4)),
    "vgg11_bn": functools.partial(VGG, stages=(1, 1, 2, 2, 2), norm="batch"),
    "vgg13_bn": functools.partial(VGG, stages=(2, 2, 2, 2, 2), norm="batch"),
    "vgg16_bn": functools.partial(VGG, stages=(2, 2, 3, 3, 3), norm="batch"),
    "vgg19_bn": functools.partial(VGG, stages=(2, 2, 4, 4, 4), norm="batch"),
    "googlenet": GoogLeNet,
    "resnet18": functools.partial(ResNet, stages=(2, 2, 2, 2)),
    "resnet34": functools.partial(ResNet, stages=(3, 4, 6, 3)),
    "resnet50": functools.partial(ResNet, stages=(3, 4, 6, 3), bottleneck=True),
    "resnet101": functools.partial(ResNet, stages=(3, 4, 23, 3), bottleneck=True),
    "resnet152": functools.partial(ResNet, stages=(3, 8, 36, 3), bottleneck=True),
    "resnet18_v2": functools.partial(ResNet, stages=(2, 2, 2, 2), preactivation=True),
    "resnet34_v2": functools.partial(ResNet, stages=(3, 4, 6, 3), preactivation=True),
    "resnet50_v2": functools.partial(ResNet, stages=(3, 4, 6, 3), bottleneck=True, preactivation=True),
    "resnet101_v2": functools.partial(ResNet, stages=(3, 4, 23, 3), bottleneck=True, preactivation=True),
    "resnet152_v2": functools.partial(ResNet, stages=(3, 8, 36, 3), bottleneck=True, preactivation=True),
    "wide_resnet50_2": functools.partial(ResNet, stages=(3, 4, 6, 3), bottleneck=True, widen=2),
    "resnet20": functools.partial(_CIFAR, stages=(3, 3, 3)),
    "resnet32": functools.partial(_CIFAR, stages=(5, 5, 5)),
    "resnet44": functools.partial(_CIFAR, stages=(7, 7, 7)),
    "resnet56": functools.partial(_CIFAR, stages=(9, 9, 9)),
    "resnet110": functools.partial(_CIFAR, stages=(18, 18, 18)),
    "wide_resnet28_10": functools.partial(_CIFAR, stages=(4, 4, 4), widen=10, preactivation=True, shortcut="B"),
    "densenet121": functools.partial(DenseNet, stages=(6, 12, 24, 16)),
    "densenet169": functools.partial(DenseNet, stages=(6, 12, 32, 32)),
    "densenet201": functools.partial(DenseNet, stages=(6, 12, 48, 32)),
    "densenet_bc_100": functools.partial(DenseNet, stages=(16, 16, 16), growth=12, stem="small"),
    "rnn": functools.partial(Recurrent, cell=nn.SimpleCell),
    "mgu": functools.partial(Recurrent, cell=nn.MGUCell),
    "gru": functools.partial(Recurrent, cell=nn.GRUCell),
    "lstm": functools.partial(Recurrent, cell=LSTMCell),
    "gru_seq2seq": functools.partial(EncoderDecoder, cell=nn.GRUCell),
    "lstm_seq2seq": functools.partial(EncoderDecoder, cell=LSTMCell),
}

_NOT_KNOBS = {"num_classes", "axis_name", "output_steps", "vocabulary", "values", "cell", "parent", "name"}
# The types of fields that become flags, besides Literals; fields of other types are set by partials only.
_KNOB_TYPES = (int, float, bool, str, tuple[int, ...])


class ModelKnob(NamedTuple):
    """A field of a model's module that a flag of the same name sets."""

    name: str
    type: Any
    default: Any
    help: str


def build(
    name: str,
    *,
    num_classes: int,
    axis_name: str | None = None,
    output_steps: int | None = None,
    vocabulary: int = 0,
    values: bool = False,
    **knobs: Any,
) -> nn.Module:
    """Returns the module called `name`, to be used as `module.apply(variables, images, train=False)`.

    Args:
        name: a key of MODELS.
        num_classes: length of the logits, or of the values of a forecast.
        axis_name: the mapped axis over which a batch is split, for models whose examples depend on each other (batch norm) or on
            their position (dropout).
        output_steps: time steps of the output; None: one output for each example, without a time axis.
        vocabulary: the number of different tokens if the input is tokens; else 0.
        values: whether the outputs are values rather than logits.
        **knobs: fields of the module; absent ones keep their defaults.

    Raises:
        UsageError: the name or a knob is unknown, or a value is of the wrong type.
    """
    check(name, knobs)
    shared = {"num_classes": num_classes, "axis_name": axis_name}
    shared |= {"output_steps": output_steps, "vocabulary": vocabulary, "values": values}
    fields = module_class(name).__dataclass_fields__
    return MODELS[name](**{k: v for k, v in shared.items() if k in fields}, **knobs)


def module_class(name: str) -> type[nn.Module]:
    """Returns the class of the model called `name`, without its partials. Raises UsageError for an unknown name."""
    if name not in MODELS:
        raise UsageError(unknown(name, MODELS), "model")
    constructor: Any = MODELS[name]
    while isinstance(constructor, functools.partial):
        constructor = constructor.func
    return constructor


def knobs(name: str) -> list[ModelKnob]:
    """Returns the settings of a model: its module's fields, with the defaults that its line in MODELS gives them."""
    return list(_knobs(module_class(name), MODELS[name]))


@functools.cache
def _knobs(cls: type[nn.Module], constructor: Callable) -> list[ModelKnob]:
    hints, signature = get_type_hints(cls), inspect.signature(constructor)
    doc = inspect.getdoc(cls) or ""
    rows = []
    for field in cls.__dataclass_fields__:
        if field in signature.parameters and field not in _NOT_KNOBS and _is_flag_type(hints[field]):
            match = re.search(rf"^\s+{field}: (.*)$", doc, re.MULTILINE)
            rows.append(ModelKnob(field, hints[field], signature.parameters[field].default, match[1] if match else ""))
    return rows


def _is_flag_type(hint: Any) -> bool:
    """Returns whether a flag can have a value of this type."""
    return hint in _KNOB_TYPES or get_origin(hint) is Literal or (is_union(hint) and all(map(_is_flag_type, get_args(hint))))


def families() -> list[list[str]]:
    """Returns the names in MODELS, grouped by class."""
    by_class: dict[type[nn.Module], list[str]] = {}
    for name in MODELS:
        by_class.setdefault(module_class(name), []).append(name)
    return list(by_class.values())


def summary(name: str) -> str:
    """Returns the first line of a model's docstring."""
    return (inspect.getdoc(module_class(name)) or name).splitlines()[0]


def check(name: str, values: Mapping[str, Any]) -> None:
    """Raises UsageError unless `values` are settings of this model, of the right types, with integers in [1, 10^6]."""
    known = {k.name: k for k in knobs(name)}
    for flag, value in values.items():
        if flag not in known:
            raise UsageError(foreign(flag, name), flag)
        check_type(flag, value, known[flag].type)
        for number in value if isinstance(value, tuple) else (value,):
            if known[flag].type in (int, tuple[int, ...]) or (is_union(known[flag].type) and isinstance(number, int)):
                check_within(flag, number, "[1, 1000000]")
    for knob in known.values():
        if knob.name not in values and knob.default is inspect.Parameter.empty:
            raise UsageError(f"{name} needs a value", knob.name)


def foreign(flag: str, name: str) -> str:
    """Returns the message about a flag that the model `name` does not have."""
    owners = [other for other in MODELS if flag in {k.name for k in knobs(other)}]
    own = ", ".join(k.name for k in knobs(name)) or "none"
    models = ", ".join(owners[:3]) + (f" and {len(owners) - 3} more" if len(owners) > 3 else "")
    return (f"a flag of {models}, not of {name}" if owners else f"not a flag of {name}") + f" (which has {own})"


def has_dropout(module: nn.Module | type[nn.Module]) -> bool:
    """Returns whether the module's `__call__` has an argument `dropout_rate`."""
    return "dropout_rate" in inspect.signature(module.__call__).parameters


def takes_sequences(module: nn.Module | type[nn.Module]) -> bool:
    """Returns whether the module's `__call__` has an argument `lengths`: it then takes `[batch, time, ...]`, and images too."""
    return "lengths" in inspect.signature(module.__call__).parameters


def wanted_image_size(name: str, values: Mapping[str, Any] = MappingProxyType({})) -> int:
    """Returns the pixels a side that the model was designed for, with these settings; 0 if it takes any size."""
    return getattr(build(name, num_classes=1, **values), "image_size", 0)
