"""``python -m scrapy_acecaptcha`` is the command ``acecaptcha``."""

import sys

from scrapy_acecaptcha.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
