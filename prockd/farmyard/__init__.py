"""Farmyard: drawn quadrupeds with known parts, the built-in world of prockd."""

from prockd._data_path import data_path as data_path
from prockd.farmyard.backdrop import BACKGROUNDS as BACKGROUNDS
from prockd.farmyard.body import KEYPOINTS as KEYPOINTS
from prockd.farmyard.body import PARTS as PARTS
from prockd.farmyard.dataset import RENDERER_VERSION as RENDERER_VERSION
from prockd.farmyard.dataset import Farmyard as Farmyard
from prockd.farmyard.scene import FORMS as FORMS
from prockd.farmyard.scene import render as render
from prockd.farmyard.sheet import overlay_parts as overlay_parts
from prockd.farmyard.sheet import part_palette as part_palette
from prockd.farmyard.sheet import species_sheet as species_sheet
from prockd.farmyard.species import Species as Species
from prockd.farmyard.species import SpeciesError as SpeciesError
from prockd.farmyard.species import load_species as load_species
