"""Two packages that know no sibling compute one spectrum."""

import torch

from swd_eval.diagnostics import radial_power
from swd_spectral import rapsd


def test_the_radial_power_of_a_metric_is_that_of_swd_spectral():
    x = torch.randn(3, 32, 32, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    torch.testing.assert_close(radial_power(x).mean(0), rapsd(x[:, None]).power)
