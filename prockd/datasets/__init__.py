"""Your own images as samples, and any data set packed at one size into one memory-mapped array.

A data set is anything with ``classes``, ``fingerprint``, a length and samples (:class:`prockd._types.ImageDataset`):
a folder of pictures, arrays in memory, Farmyard, a part of one of them, or the packed form of any. :func:`open_data`
opens the formats below by their looks, and :func:`check_data` lists everything that is wrong with them. Each may lie
below ``train``, ``val`` and ``test``, beside a folder ``unlabelled`` of any further pictures. A file ``classes.txt``
beside them names the classes, one a line, in label order.
Pictures are .jpg, .png, .bmp, .webp or .tif. Key points (:func:`read_keypoints`) may also lie beside
images of another format. :mod:`prockd.datasets.formats` shows how to add a format.

Formats: the task, the name, how it looks, and what opens it::

"""

import lazy_loader

from prockd.datasets.formats import format_list

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

__doc__ = f"{__doc__}{format_list(openers=True)}\n"
