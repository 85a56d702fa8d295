"""Private: the vendor's product TIIA, ``DetectLabelPro`` and ``DetectLabel``."""
