"""Your own images as samples, and any data set packed at one size into one memory-mapped array.

A data set is anything with ``classes``, ``fingerprint``, a length and samples (:class:`prockd._types.ImageDataset`):
a folder of pictures, arrays in memory, Farmyard, a part of one of them, or the packed form of any. :func:`open_data`
opens the formats below by their looks, and :func:`check_data` lists everything that is wrong with them. Each may lie
below ``train``, ``val`` and ``test``. A file ``classes.txt`` beside them names the classes, one a line, in label order.
Pictures are .jpg, .png, .bmp, .webp or .tif. Key points (:func:`read_keypoints`) lie in ``parts.csv``:
``frame,joint_id,part,x_px,y_px,visible``. :mod:`prockd.datasets.formats` shows how to add a format.

Formats: the task, the name, how it looks, and what opens it::

"""

from prockd.datasets.archives import unpack as unpack
from prockd.datasets.arrays import Arrays as Arrays
from prockd.datasets.arrays import open_npz as open_npz
from prockd.datasets.boxes import VocFolder as VocFolder
from prockd.datasets.check import DataCheck as DataCheck
from prockd.datasets.check import check_data as check_data
from prockd.datasets.coco import CocoFile as CocoFile
from prockd.datasets.folder import ImageFolder as ImageFolder
from prockd.datasets.formats import classes_of as classes_of
from prockd.datasets.formats import format_list
from prockd.datasets.formats import open_splits as open_splits
from prockd.datasets.keypoints import PointAnnotations as PointAnnotations
from prockd.datasets.keypoints import read_keypoints as read_keypoints
from prockd.datasets.masks import MaskDataset as MaskDataset
from prockd.datasets.masks import MaskFolder as MaskFolder
from prockd.datasets.opening import checked as checked
from prockd.datasets.opening import open_data as open_data
from prockd.datasets.opening import skip_bad as skip_bad
from prockd.datasets.packed import PackedImages as PackedImages
from prockd.datasets.packing import pack as pack
from prockd.datasets.problems import DatasetError as DatasetError
from prockd.datasets.read import IMAGE_SUFFIXES as IMAGE_SUFFIXES
from prockd.datasets.read import read_image as read_image
from prockd.datasets.read import read_mask as read_mask
from prockd.datasets.splits import groups_of as groups_of
from prockd.datasets.splits import labels_of as labels_of
from prockd.datasets.splits import subset as subset
from prockd.datasets.splits import train_test_split as train_test_split
from prockd.datasets.table import ImageTable as ImageTable
from prockd.datasets.torchvision_sets import cifar as cifar
from prockd.datasets.torchvision_sets import oxford_pet as oxford_pet
from prockd.datasets.torchvision_sets import pascal_voc as pascal_voc

__doc__ = f"{__doc__}{format_list(openers=True)}\n"
