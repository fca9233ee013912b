"""A pre-trained Recformer of either kind, asked for a shape that its weights do not have."""

from __future__ import annotations

import pytest
from tests.models.recformer.test_causal_recformer import make as causal
from tests.models.recformer.test_modeling_recformer import make
from tests.models.recformer.tiny_recformer import tokens_of

from seqkd.catalogue import Catalogue
from seqkd.errors import ConfigError


@pytest.mark.parametrize("build", [make, causal])
@pytest.mark.parametrize("changes", [{"hidden_size": 16}, {"num_hidden_layers": 5}, {"max_token_positions": 50}])
def test_a_domain_of_another_shape_is_refused(build, changes):
    with pytest.raises(ConfigError, match="another shape with"):
        build().for_domain(Catalogue("xyz"), tokens_of(3), **changes)


def test_fewer_layers_are_not_dropped_without_a_word():
    with pytest.raises(ConfigError, match="another shape with"):
        causal().for_domain(Catalogue("xyz"), tokens_of(3), num_hidden_layers=1)
