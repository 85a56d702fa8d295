"""Private: the vendor's recognition service, ``picture_classify`` and ``imagetag_detect``."""
