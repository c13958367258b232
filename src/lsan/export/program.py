"""A network as a program of a few kinds of operations (docs/bundle.md), for engines that know no models."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lsan.errors import ConfigError
from lsan.models.encoders.attention import Attention, FeedForward, Positions, PostNormBlock
from lsan.models.encoders.bert4rec import Bert4Rec
from lsan.models.encoders.bsarec import BsaRec, BsaRecBlock
from lsan.models.encoders.caser import Caser
from lsan.models.encoders.fpmc import Fpmc
from lsan.models.encoders.gru4rec import Gru4Rec
from lsan.models.encoders.lightsans import Interests, LightBlock, LightSans
from lsan.models.encoders.sasrec import PreNormBlock, SasRec
from lsan.models.encoders.twin_attention import TwinAttention, TwinAttentionBlock
from lsan.models.encoders.twin_transformer import TwinBlock, TwinTransformer
from lsan.models.item_tables.coded import CodedTable
from lsan.models.item_tables.composed import ComposedTable
from lsan.models.item_tables.turned import TurnedTable
from lsan.models.network import Network
from lsan.models.packing import matrix_bits, settled_state
from lsan.models.quantisation import quantise, scale_count, scales_of
from lsan.models.time import TimeFeatures


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """One tensor of a program."""

    values: Tensor
    """Floats; where there are bits, whole numbers of so many bits around 0."""
    bits: int | None = None
    """4 or 8 where it is quantised."""
    scales: Tensor | None = None
    """Then its scales: one for each index of the first axis, or one in all."""

    @property
    def is_quantised(self) -> bool:
        """Whether it is written in few bits: it has them, and the scales that its shape should have."""
        return self.scales is not None and len(self.scales) == scale_count(self.values.shape)

    def changed(self, change: Callable[[Tensor], Tensor]) -> "Parameter":
        """Its numbers in another order, or some of them; rows stay rows."""
        return Parameter(values=change(self.values).contiguous(), bits=self.bits, scales=self.scales)


@dataclass(frozen=True, kw_only=True)
class Program:
    """What turns a history into a hidden vector, and that into scores."""

    operations: list[dict[str, Any]]
    """As docs/bundle.md says."""
    parameters: dict[str, Parameter]
    """The tensors that they and `output` name."""
    output: dict[str, Any]
    """The manifest's `output`."""
    timed: bool
    """Whether some operation reads times."""


#: How the products of matrices are computed: in float32, or in whole numbers of 8 bits.
Arithmetic = Literal["float32", "int8"]


def program_of(network: Network, arithmetic: Arithmetic = "float32") -> Program:
    """The program that computes what `network.scores` computes, for users that training did not know.

    Args:
        arithmetic: "int8" rounds what goes into products with quantised matrices to 8 bits, row by row (dynamic
            quantisation), so that engines can multiply whole numbers. Then it computes nearly the same.

    Raises:
        ConfigError: when the network cannot be written in these operations, or has no matrices for "int8".
    """
    writer = _Writer(network, arithmetic)
    with torch.no_grad():
        hidden = writer.encode(network)
        output: dict[str, Any] = {"kind": "table", "bias": writer.parameter("table.bias")}
        if network.untied is not None:
            width, columns = network.config.width, slice(None)
            if isinstance(network.encoder, Fpmc):  # [user ; item], and the user's half is zero for anyone else
                columns = slice(width, None)
            elif isinstance(network.encoder, Caser):
                columns = slice(0, width)
            weight = writer.parameter("untied", lambda tensor: tensor[:, columns])
            output = {"kind": "matrix", "weight": weight, "bias": output["bias"]}
        elif isinstance(network.encoder, Caser | Fpmc):
            raise ConfigError("the encoders caser and fpmc need untied_output = true to be exported")
        elif isinstance(network.table, TurnedTable) and network.table.turn is not None:
            hidden = writer.linear(hidden, "table.turn", bias=False)
        if hidden != len(writer.operations) - 1:
            writer.write("last", hidden)
    if arithmetic == "int8" and not any("input_bits" in operation for operation in writer.operations):
        raise ConfigError(
            "arithmetic int8 needs an encoder whose matrices are quantised: `lsan compress`, or train with "
            "[model.quantisation] weights = 8"
        )
    return Program(operations=writer.operations, parameters=writer.parameters, output=output, timed=writer.reads_times)


class _Writer:
    """Appends operations; each method gives the number of the operation whose matrix it describes."""

    def __init__(self, network: Network, arithmetic: Arithmetic) -> None:
        self._arithmetic = arithmetic
        self.operations: list[dict[str, Any]] = []
        self.parameters: dict[str, Parameter] = {}
        self.reads_times = False
        self._short: dict[str, str] = {}
        self._state = settled_state(network)
        self._bits = matrix_bits(self._state, network.config)
        self._names = {id(module): name for name, module in network.named_modules()}

    def write(self, op: str, *read: int, **names: Any) -> int:
        self.operations.append({"op": op, "in": list(read), **names})
        return len(self.operations) - 1

    def parameter(self, name: str, change: Callable[[Tensor], Tensor] | None = None) -> str:
        """The network's tensor of that name, or some of it or in another order, as a parameter of the program. Gives
        the parameter's name: a short one, since a program names each a few times."""
        if name not in self._short:
            values, bits = self._state[name].float(), self._bits.get(name)
            found = Parameter(values=values)
            if bits is not None:
                scales = scales_of(values, bits)
                found = Parameter(values=quantise(values, scales, bits), bits=bits, scales=scales)
            self._add(name, found if change is None else found.changed(change))
        return self._short[name]

    def computed(self, name: str, values: Tensor) -> str:
        """A parameter that is no tensor of the network's, but follows from some."""
        self._add(name, Parameter(values=values.detach().float().cpu().contiguous()))
        return self._short[name]

    def _add(self, name: str, parameter: Parameter) -> None:
        of_items = name.startswith(("table.", "untied"))
        self._short[name] = name if of_items else f"e{len(self.parameters)}"
        self.parameters[self._short[name]] = parameter

    def name_of(self, module: nn.Module, tensor: str) -> str:
        return f"{self._names[id(module)]}.{tensor}"

    # ---- parts that models share

    def linear(
        self, x: int, weight: str, *, bias: bool = True, begin: int = 0, end: int | None = None,
        transposed: bool = False, activation: str = "none",
    ) -> int:  # fmt: skip
        short = self.parameter(weight)
        if end is None:
            end = self.parameters[short].values.shape[1 if transposed else 0]
        whole = self._arithmetic == "int8" and self.parameters[short].is_quantised and not transposed
        return self.write(
            "linear", x, weight=short, begin=begin, end=end, transposed=transposed, activation=activation,
            bias=self.parameter(weight.removesuffix("weight") + "bias") if bias else None,
            **({"input_bits": 8} if whole else {}),
        )  # fmt: skip

    def layer(self, x: int, module: nn.Linear, begin: int = 0, end: int | None = None, activation: str = "none") -> int:
        has_bias = module.bias is not None
        return self.linear(
            x, self.name_of(module, "weight"), bias=has_bias, begin=begin, end=end, activation=activation
        )

    def norm(self, x: int, module: nn.Module) -> int:
        if isinstance(module, nn.Identity):
            return x
        assert isinstance(module, nn.LayerNorm)
        return self.write(
            "norm", x, weight=self.parameter(self.name_of(module, "weight")),
            bias=self.parameter(self.name_of(module, "bias")), eps=module.eps,
        )  # fmt: skip

    def sum(self, *read: int, factors: tuple[float, ...] | None = None) -> int:
        return self.write("sum", *read, factors=list(factors or (1.0,) * len(read)))

    def last(self, x: int) -> int:
        return self.write("last", x)

    def positions(self, module: Positions, of: int | None = None) -> int:
        table = self.parameter(self.name_of(module, "weight"))
        index = "position" if module.from_first else "position_from_end"
        if of is None:
            return self.write("rows", table=table, index=index)
        return self.write("rows", of, table=table, index=index, of=of)

    def attention(self, asking: int, x: int, module: Attention, *, causal: bool) -> int:
        width = module.qkv.in_features
        query = self.layer(asking, module.qkv, 0, width)
        key = self.layer(x, module.qkv, width, 2 * width)
        value = self.layer(x, module.qkv, 2 * width, 3 * width)
        return self.attend(query, key, value, module.heads, (width // module.heads) ** -0.5, causal=causal)

    def attend(self, query: int, key: int, value: int, heads: int, scale: float, *, causal: bool = False) -> int:
        return self.write("attention", query, key, value, heads=heads, causal=causal, scale=scale)

    def feed_forward(self, x: int, module: FeedForward) -> int:
        inner = self.layer(x, module.inner, activation="gelu")
        return self.norm(self.sum(x, self.layer(inner, module.out)), module.norm)

    def convolution(self, x: int, module: nn.Module, back: int, *, last: bool) -> int:
        return self.write("convolution", x, kernel=self.parameter(self.name_of(module, "kernel")), back=back, last=last)

    # ---- what the encoder reads

    def items(self, network: Network) -> int:
        table, factor = network.table, 1.0
        context = None if network.context is None else self.context(network)
        self.parameter("table.weight")
        if context is not None and isinstance(table, CodedTable | ComposedTable):
            factor = float(table.tables) if isinstance(table, CodedTable) else 1.0
            x = self.write("items", context, factor=factor, attention=self.parameter("table.attention.weight"))
        else:
            factor = 1 / len(table.radices) if isinstance(table, ComposedTable) else 1.0
            x = self.write("items", factor=factor)
        if isinstance(table, TurnedTable) and table.turn is not None:
            x = self.linear(x, "table.turn", bias=False, transposed=True)
        if network.fusion is not None and context is not None:
            inner, outer = network.fusion.mlp[0], network.fusion.mlp[2]
            assert isinstance(inner, nn.Linear)
            assert isinstance(outer, nn.Linear)
            both = self.write("concat", x, context)
            fused = self.layer(self.layer(both, inner, activation="gelu"), outer)
            x = fused if network.fusion.norm is None else self.norm(self.sum(x, fused), network.fusion.norm)
        if network.time is not None:
            x = self.sum(x, *self.times(network.time))
        return x

    def context(self, network: Network) -> int:
        self.reads_times = True
        tables = (("previous_category", "previous_category"), ("category", "category"), ("hour", "hour"))
        return self.sum(
            *(self.write("rows", table=self.parameter(f"context.{name}"), index=index) for name, index in tables)
        )

    def times(self, module: TimeFeatures) -> list[int]:
        self.reads_times = True
        names = {"gap_before": "gap_before", "gap_after": "gap_after", "hour": "hour_after", "weekday": "weekday_after"}
        return [
            self.write("rows", table=self.parameter(f"time.{name}"), index=index)
            for name, index in names.items()
            if getattr(module, name) is not None
        ]

    # ---- encoders

    def encode(self, network: Network) -> int:
        """The hidden vector after the last event."""
        x, encoder = self.items(network), network.encoder
        match encoder:
            case TwinTransformer():
                return self.twin_transformer(x, encoder)
            case TwinAttention():
                return self.twin_attention(x, encoder)
            case SasRec():
                return self.sasrec(x, encoder)
            case Bert4Rec():
                return self.bert4rec(x, encoder)
            case LightSans():
                return self.lightsans(x, encoder)
            case BsaRec():
                return self.bsarec(x, encoder)
            case Gru4Rec():
                return self.gru4rec(x, encoder)
            case Caser():
                return self.caser(x, encoder)
            case Fpmc():
                return self.last(x)
            case _:
                raise ConfigError(f"{type(encoder).__name__} cannot be exported")

    def twin_transformer(self, x: int, encoder: TwinTransformer) -> int:
        x = self.norm(self.sum(x, self.positions(encoder.positions)), encoder.input_norm)
        for block, final in _with_last(encoder.blocks):
            assert isinstance(block, TwinBlock)
            asking = self.last(x) if final else x
            local = self.convolution(x, block.local, block.local.back, last=final)
            attended = self.attention(asking, x, block.attention, causal=encoder.causal)
            mixed = self.layer(self.write("concat", local, attended), block.mix)
            x = self.feed_forward(self.norm(self.sum(asking, mixed), block.mix_norm), block.feed_forward)
        return x

    def twin_attention(self, x: int, encoder: TwinAttention) -> int:
        positions = self.positions(encoder.positions)
        for number, (block, final) in enumerate(_with_last(encoder.blocks)):
            assert isinstance(block, TwinAttentionBlock)
            placed = self.sum(x, positions)
            attended = self.attention(self.last(placed) if final else placed, placed, block.attention,
                                      causal=encoder.causal)  # fmt: skip
            local = self.convolution(x, block.local, block.local.back, last=final)
            mixed = self.layer(self.write("concat", local, attended), block.mix, activation="gelu")
            out = self.layer(mixed, block.out)
            if encoder.norms:
                out = self.norm(self.sum(out, self.last(x) if final else x), encoder.norms[number])
            x = out
        return x

    def post_norm_block(self, x: int, block: nn.Module, *, causal: bool, final: bool) -> int:
        assert isinstance(block, PostNormBlock)
        asking = self.last(x) if final else x
        attended = self.layer(self.attention(asking, x, block.attention, causal=causal), block.out)
        return self.feed_forward(self.norm(self.sum(asking, attended), block.norm), block.feed_forward)

    def sasrec(self, x: int, encoder: SasRec) -> int:
        x = self.sum(x, self.positions(encoder.positions), factors=(encoder.scale, 1.0))
        x = self.norm(x, encoder.input_norm)
        for block, final in _with_last(encoder.blocks):
            if isinstance(block, PreNormBlock):
                asking = self.norm(self.last(x) if final else x, block.query_norm)
                attended = self.layer(self.attention(asking, x, block.attention, causal=True), block.out)
                y = self.norm(self.sum(asking, attended), block.feed_forward_norm)
                inner, outer = block.feed_forward[0], block.feed_forward[3]
                assert isinstance(inner, nn.Linear)
                assert isinstance(outer, nn.Linear)
                x = self.sum(y, self.layer(self.layer(y, inner, activation="relu"), outer))
            else:
                x = self.post_norm_block(x, block, causal=True, final=final)
        return self.norm(x, encoder.output_norm)

    def bert4rec(self, x: int, encoder: Bert4Rec) -> int:
        mask = self.write("constant", tensor=self.parameter(self.name_of(encoder, "mask"), lambda mask: mask[None]))
        x = self.write("append", x, mask)
        x = self.norm(self.sum(x, self.positions(encoder.positions, of=x)), encoder.norm)
        for block, final in _with_last(encoder.blocks):
            x = self.post_norm_block(x, block, causal=False, final=final)
        return self.layer(x, encoder.transform, activation="gelu")

    def bsarec(self, x: int, encoder: BsaRec) -> int:
        x = self.norm(self.sum(x, self.positions(encoder.positions)), encoder.norm)
        for block, final in _with_last(encoder.blocks):
            assert isinstance(block, BsaRecBlock)
            # low + beta^2 (x - low) + x
            name, beta = self.name_of(block.filter, "beta"), block.filter.beta
            first = block.filter.matrix[:, 0]
            low = self.write(
                "circulant", x, kernel=self.computed(self.name_of(block.filter, "kernel"), first), last=final
            )
            asking = self.last(x) if final else x
            kept = self.write("channels", low, tensor=self.computed(f"{name}.low", 1 - beta**2))
            passed = self.write("channels", asking, tensor=self.computed(f"{name}.all", 1 + beta**2))
            filtered = self.norm(self.sum(kept, passed), block.filter_norm)
            attended = self.layer(self.attention(asking, x, block.attention, causal=True), block.out)
            attended = self.norm(self.sum(asking, attended), block.attention_norm)
            both = self.sum(filtered, attended, factors=(block.alpha, 1 - block.alpha))
            x = self.feed_forward(both, block.feed_forward)
        return x

    def lightsans(self, x: int, encoder: LightSans) -> int:
        positions, x = self.positions(encoder.positions), self.norm(x, encoder.norm)
        for block, final in _with_last(encoder.blocks):
            assert isinstance(block, LightBlock)
            inside, width = block.attention, encoder.output_width
            asking = self.last(x) if final else x
            key = self.layer(x, inside.key_value, 0, width)
            value = self.layer(x, inside.key_value, width, 2 * width)
            query = self.layer(asking, inside.query)
            of_items = self.attend(
                query, self.interests(key, inside.key_interests), self.interests(value, inside.value_interests),
                inside.heads, (width // inside.heads) ** -0.5,
            )  # fmt: skip
            placed = self.norm(positions, inside.position_norm)
            of_positions = self.attend(
                self.layer(self.last(placed) if final else placed, inside.position_query),
                self.layer(placed, inside.position_key), value, inside.heads, inside.position_scale,
            )  # fmt: skip
            attended = self.layer(self.sum(of_items, of_positions), inside.out)
            x = self.feed_forward(self.norm(self.sum(asking, attended), block.norm), block.feed_forward)
        return x

    def interests(self, x: int, module: Interests) -> int:
        theta = self.write("constant", tensor=self.parameter(self.name_of(module, "theta")))
        return self.attend(theta, x, x, 1, 1.0)

    def gru4rec(self, x: int, encoder: Gru4Rec) -> int:
        for layer in range(encoder.gru.num_layers):
            names = {"input": "weight_ih", "state": "weight_hh", "input_bias": "bias_ih", "state_bias": "bias_hh"}
            x = self.write("gru", x, **{
                key: self.parameter(self.name_of(encoder.gru, f"{name}_l{layer}")) for key, name in names.items()
            })  # fmt: skip
        return self.layer(self.last(x), encoder.out)

    def caser(self, x: int, encoder: Caser) -> int:
        window = self.write("window", x, length=encoder.order)
        vertical = self.write("flatten", self.layer(self.write("transpose", window), encoder.vertical))
        features = [vertical]
        for height, convolution in enumerate(encoder.horizontal, start=1):
            assert isinstance(convolution, nn.Conv1d)
            weight = self.name_of(convolution, "weight")
            self.parameter(weight, lambda tensor: tensor.transpose(1, 2).flatten(1))  # as `unfold` lays rows out
            found = self.linear(self.write("unfold", window, height=height), weight, activation="relu")
            features.append(self.write("max", found))
        return self.layer(self.write("concat", *features), encoder.fuse, activation="relu")


def _with_last(blocks: nn.ModuleList) -> list[tuple[nn.Module, bool]]:
    """Each block, and whether it is the last one, of which only the last row is wanted."""
    return [(block, number == len(blocks) - 1) for number, block in enumerate(blocks)]
