"""Drawn examples shared out among dtypes, a test each: on a GPU most examples compile, which workers then share."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given, seed, settings


def shared_out(dtypes: Sequence[torch.dtype], examples: int, **drawn: Any) -> Callable[[Callable[..., None]], Any]:
    """A test of `dtype` and what is drawn, with so many examples in all, others for each dtype."""

    def decorate(test: Callable[..., None]) -> Any:
        def run(dtype: torch.dtype) -> None:
            @seed(dtypes.index(dtype))
            @settings(max_examples=-(-examples // len(dtypes)))
            @given(**drawn)
            def check(**given_: Any) -> None:
                test(dtype=dtype, **given_)

            check()

        run.__name__, run.__doc__, run.__module__ = test.__name__, test.__doc__, test.__module__
        return pytest.mark.parametrize("dtype", dtypes, ids=str)(run)

    return decorate
