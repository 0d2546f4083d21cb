"""Adversarial attacks: FGSM, PGD and APGD for l-infinity, l2 and l1."""

from keras_epsched.attacks.apgd import APGD as APGD
from keras_epsched.attacks.base import Attack as Attack
from keras_epsched.attacks.base import SearchResult as SearchResult
from keras_epsched.attacks.pgd import FGSM as FGSM
from keras_epsched.attacks.pgd import PGD as PGD
