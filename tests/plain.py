"""What only plain Python can be tested for: the methods of a compiled class cannot be put in another one's place."""

import pytest

from loadtests.build import is_compiled

PLAIN_ONLY = pytest.mark.skipif(is_compiled(), reason="what is compiled cannot be replaced by what a test wants")
