"""Make `shop` and the tests' own `shop_servers` importable from wherever pytest is started."""

import sys
from pathlib import Path

_HERE = Path(__file__).parent
sys.path[:0] = [str(_HERE), str(_HERE / "tests")]
