"""Adversarial attacks for l-infinity, l2 and l1, alone and in ensembles."""

from keras_epsched.attacks.apgd import APGD as APGD
from keras_epsched.attacks.apgd import TargetedAPGD as TargetedAPGD
from keras_epsched.attacks.base import Attack as Attack
from keras_epsched.attacks.ensemble import AttackEnsemble as AttackEnsemble
from keras_epsched.attacks.ensemble import AutoAttack as AutoAttack
from keras_epsched.attacks.ensemble import MarginEnsemble as MarginEnsemble
from keras_epsched.attacks.fab import FAB as FAB
from keras_epsched.attacks.pgd import FGSM as FGSM
from keras_epsched.attacks.pgd import NFGSM as NFGSM
from keras_epsched.attacks.pgd import PGD as PGD
from keras_epsched.attacks.problem import Problem as Problem
from keras_epsched.attacks.square import Square as Square
from keras_epsched.attacks.tracker import SearchResult as SearchResult
from keras_epsched.attacks.tracker import Tracker as Tracker
