"""ftw opens up, watches, steers and proves open-weight language models.

This module holds the version and nothing else: importing it loads no heavy library.
"""

__version__ = "0.1.0"
