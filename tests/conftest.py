"""Lets every test that says nothing else draw as `drawing` says."""

from hypothesis import settings
from tests.drawing import examples

settings.register_profile("slipstream_trio", examples(50))
settings.load_profile("slipstream_trio")
