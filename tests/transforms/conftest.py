"""Fixtures of the blur's tests."""

import pytest

from clinbundles.transforms import blur


@pytest.fixture(params=["fused", "torch"])
def kernel(request, monkeypatch):
    """Run a test with the compiled kernel and with the plain one."""
    if request.param == "torch":
        monkeypatch.setattr(blur, "_fused_kernel", lambda device_type: None)
    elif blur._fused_kernel("cpu") is None:
        pytest.skip("numba is not installed")
    return request.param
