"""Compare this project's models with outputs of the authors' code: python tools/check_parity.py FILE.npz [...].

``hdetr_d2.parity`` does it; see docs/parity.md.
"""

import sys

from hdetr_d2.parity import main

if __name__ == "__main__":
    sys.exit(main())
