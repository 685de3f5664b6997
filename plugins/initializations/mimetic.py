"""Mimetic initialization of attention layers: W_Q W_K^T near I and W_V W_proj near -I."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from transferbench.specs import InitializationContext, InitializationSpec, Params

if TYPE_CHECKING:
    from torch.nn import Module

__all__ = ["MIMETIC"]

NonNegative = Annotated[float, Field(ge=0)]


class MimeticParams(Params):
    """The weights of noise and identity in the two products of an attention layer.

    W_Q W_K^T, for each head, is ``query_key_noise`` Z + ``query_key_identity`` I truncated to the
    head's rank; W_V W_proj is ``value_noise`` Z - ``value_identity`` I; Z has entries N(0, 1/D).
    The defaults are the paper's for vision. ``sinusoidal``: absolute position embeddings
    (``pos_embed`` beside ``patch_embed``) are set to sinusoids, as in the paper's recipe.
    """

    query_key_noise: NonNegative = 0.7
    query_key_identity: NonNegative = 0.7
    value_noise: NonNegative = 0.4
    value_identity: NonNegative = 0.4
    sinusoidal: bool = True


def _initialize(params: MimeticParams, net: Module, context: InitializationContext) -> None:
    from transferbench_plugins.initializations import _attention_weights as attention_weights

    for layer in attention_weights.attention_layers("mimetic", net, context):
        attention_weights.set_query_key(
            layer, params.query_key_noise, params.query_key_identity, context.generator
        )
        attention_weights.set_value_projection(
            layer, params.value_noise, params.value_identity, context.generator
        )
    if params.sinusoidal:
        attention_weights.set_positions(net, context)


MIMETIC = InitializationSpec(
    name="mimetic",
    version=1,
    summary="What pre-trained attention has in common: W_Q W_K^T near I, W_V W_proj near -I",
    source="Trockman, Kolter, ICML 2023, https://arxiv.org/abs/2305.09828",
    license="Apache-2.0",
    params=MimeticParams,
    initialize=_initialize,
    touches="body",
)
