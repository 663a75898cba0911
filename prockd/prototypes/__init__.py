"""Prototypes: the bank, how it is found, and how it is added to features."""

from prockd.prototypes.augmentation import FeatureAugmentation as FeatureAugmentation
from prockd.prototypes.bank import PrototypeBank as PrototypeBank
from prockd.prototypes.bank import groups_in_turn as groups_in_turn
from prockd.prototypes.bank import nearest_patches as nearest_patches
from prockd.prototypes.discovery import discover as discover
from prockd.prototypes.embedding import embed_features as embed_features
