"""Families: environments whose context varies, read from definition files and registered with Gymnasium."""

from hyperrl.families.context_env import ContextEnv as ContextEnv
from hyperrl.families.contract import Finding as Finding
from hyperrl.families.contract import check_family as check_family
from hyperrl.families.definition import FamilyDefinition as FamilyDefinition
from hyperrl.families.definition import FamilySpec as FamilySpec
from hyperrl.families.definition import family_spec as family_spec
from hyperrl.families.family import Family as Family
from hyperrl.families.family import family_of as family_of
from hyperrl.families.family import load_family as load_family
from hyperrl.families.registration import register as register
