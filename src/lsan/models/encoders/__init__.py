"""How the vectors of a history become one vector. One file an encoder."""

from typing import assert_never

from lsan.config import (
    Bert4RecConfig,
    BsaRecConfig,
    CaserConfig,
    FpmcConfig,
    Gru4RecConfig,
    LightSansConfig,
    ModelConfig,
    SasRecConfig,
    TwinAttentionConfig,
    TwinTransformerConfig,
)
from lsan.models.encoders.bert4rec import Bert4Rec
from lsan.models.encoders.bsarec import BsaRec
from lsan.models.encoders.caser import Caser
from lsan.models.encoders.encoder import Encoder
from lsan.models.encoders.fpmc import Fpmc
from lsan.models.encoders.gru4rec import Gru4Rec
from lsan.models.encoders.lightsans import LightSans
from lsan.models.encoders.sasrec import SasRec
from lsan.models.encoders.twin_attention import TwinAttention
from lsan.models.encoders.twin_transformer import TwinTransformer

__all__ = ["Encoder", "make_encoder"]


def make_encoder(config: ModelConfig, users: int) -> Encoder:
    """The encoder that `config.encoder` describes, newly initialised, for users 1..`users`."""
    encoder = config.encoder
    match encoder:
        case TwinAttentionConfig():
            return TwinAttention(config, encoder)
        case TwinTransformerConfig():
            return TwinTransformer(config, encoder)
        case SasRecConfig():
            return SasRec(config, encoder)
        case Bert4RecConfig():
            return Bert4Rec(config, encoder)
        case Gru4RecConfig():
            return Gru4Rec(config, encoder)
        case CaserConfig():
            return Caser(config, encoder, users)
        case FpmcConfig():
            return Fpmc(config, users)
        case LightSansConfig():
            return LightSans(config, encoder)
        case BsaRecConfig():
            return BsaRec(config, encoder)
        case _:
            assert_never(encoder)
