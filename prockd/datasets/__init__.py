"""Your own images as samples, and any data set packed at one size into one memory-mapped array.

A data set is anything with ``classes``, ``fingerprint``, a length and samples (:class:`prockd._types.ImageDataset`):
a folder of pictures, arrays in memory, Farmyard, a part of one of them, or the packed form of any. :func:`open_data`
opens these layouts by their looks, and :func:`check_data` tells everything that is wrong with them:

============== ================= ======================================================================= ==============
task           layout            looks                                                                   class
============== ================= ======================================================================= ==============
classification class folders     ``cats/*.jpg``, ``dogs/*.jpg``                                          ImageFolder
               image list        ``labels.csv``: ``path,label[,group]``; ``path,labels`` with ``a|b``;   ImageTable
                                 or ``path`` and one column of 0 and 1 a class
               arrays            ``data.npz``: ``images``, ``labels``, ``class_names``; or               Arrays
                                 ``train_images``, ``train_labels``, ``test_images``, ...
segmentation   images and masks  ``images/a.jpg`` and ``masks/a.png``; ``frames`` and ``masks`` in one   MaskFolder
                                 folder a video; ``train`` and ``trainannot``
detection      PASCAL VOC        ``images/a.jpg`` and ``annotations/a.xml``                              VocFolder
               COCO              ``annotations/instances.json`` and ``images/a.jpg``                     CocoFile
any            torchvision's     ``oxford-iiit-pet``, ``VOCdevkit``, ``cifar-10-batches-py``,             oxford_pet,
                                 ``cifar-100-python`` as torchvision lays them out                       pascal_voc,
                                                                                                         cifar
               key points        ``parts.csv``: ``frame,joint_id,part,x_px,y_px,visible``                read_keypoints
none           loose pictures    ``*.jpg``: unlabelled images                                            ImageFolder
============== ================= ======================================================================= ==============

Each may lie below ``train``, ``val`` and ``test``. A file ``classes.txt`` beside them names the classes, one a line, in
label order. Pictures are .jpg, .png, .bmp, .webp or .tif.
"""

from prockd.datasets._common import DatasetError as DatasetError
from prockd.datasets.arrays import Arrays as Arrays
from prockd.datasets.arrays import open_npz as open_npz
from prockd.datasets.check import check_data as check_data
from prockd.datasets.coco import CocoFile as CocoFile
from prockd.datasets.data_report import DataReport as DataReport
from prockd.datasets.folder import ImageFolder as ImageFolder
from prockd.datasets.keypoints import PointAnnotations as PointAnnotations
from prockd.datasets.keypoints import read_keypoints as read_keypoints
from prockd.datasets.known import cifar as cifar
from prockd.datasets.known import oxford_pet as oxford_pet
from prockd.datasets.known import pascal_voc as pascal_voc
from prockd.datasets.layouts import open_subsets as open_subsets
from prockd.datasets.masks import MaskDataset as MaskDataset
from prockd.datasets.masks import MaskFolder as MaskFolder
from prockd.datasets.open import checked as checked
from prockd.datasets.open import open_data as open_data
from prockd.datasets.open import skip_bad as skip_bad
from prockd.datasets.packed import PackedImages as PackedImages
from prockd.datasets.packed import pack as pack
from prockd.datasets.read import IMAGE_SUFFIXES as IMAGE_SUFFIXES
from prockd.datasets.read import read_image as read_image
from prockd.datasets.read import read_mask as read_mask
from prockd.datasets.split import groups_of as groups_of
from prockd.datasets.split import labels_of as labels_of
from prockd.datasets.split import split as split
from prockd.datasets.split import subset as subset
from prockd.datasets.table import ImageTable as ImageTable
from prockd.datasets.unpack import unpack as unpack
from prockd.datasets.voc import VocFolder as VocFolder
