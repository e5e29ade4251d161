"""``python -m hdetr_d2.cli`` is ``hdetr-d2``."""

from . import run

if __name__ == "__main__":
    run()
