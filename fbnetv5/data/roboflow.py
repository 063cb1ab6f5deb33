"""Names of images in exports of Roboflow: its augmented copies of an image differ in the checksum alone.

street_jpg.rf.0123456789abcdef0123456789abcdef.jpg      a copy of street.jpg
"""

import re

CHECKSUM = re.compile(r"\.rf\.[0-9A-Za-z]{16,}(?=\.\w+$)")


def source_name(name: str) -> str:
    """The name, or path, that all copies of one image share; the name itself where it is none of Roboflow's."""
    return CHECKSUM.sub("", name)
