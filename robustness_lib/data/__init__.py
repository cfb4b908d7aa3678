"""Data sets, all loaded in one way: `load(name, split, n) -> (x, y, classes)`."""

from robustness_lib.data._files import data_folders
from robustness_lib.data._inventory import Holding, inventory
from robustness_lib.data._load import NAMES, SPLITS, load
from robustness_lib.data._splits import held_out
from robustness_lib.data.find import find_data
from robustness_lib.data.moons import draw_moons
from robustness_lib.data.photos import photograph
from robustness_lib.data.real import fetch
from robustness_lib.data.signs import draw_signs

__all__ = ["NAMES", "SPLITS", "Holding", "data_folders", "draw_moons", "draw_signs", "fetch", "find_data", "held_out",
           "inventory", "load", "photograph"]
