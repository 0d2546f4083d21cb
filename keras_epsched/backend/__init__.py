"""The one seam to the backend: all that Keras does not offer for every one."""

import keras

_NAME = keras.backend.backend()

if _NAME == "tensorflow":
    from keras_epsched.backend import tensorflow as _backend
elif _NAME == "jax":
    from keras_epsched.backend import jax as _backend  # type: ignore[no-redef]
elif _NAME == "torch":
    from keras_epsched.backend import torch as _backend  # type: ignore[no-redef]
else:
    raise ImportError(
        "keras_epsched runs on the TensorFlow, JAX and torch backends of "
        f"Keras. Received: {_NAME!r}. Set the environment variable "
        "KERAS_BACKEND=tensorflow (or jax, or torch) before Keras is imported."
    )

HASH_DTYPE = _backend.HASH_DTYPE
TrainerSteps = _backend.TrainerSteps
be_deterministic = _backend.be_deterministic
compile = _backend.compile
cond = _backend.cond
flops = _backend.flops
fori_loop = _backend.fori_loop
frozen = _backend.frozen
gradients = _backend.gradients
is_chief = _backend.is_chief
num_replicas = _backend.num_replicas
pass_over = _backend.pass_over
peak_memory = _backend.peak_memory
random_state = _backend.random_state
replica_id = _backend.replica_id
resolve_jit_compile = _backend.resolve_jit_compile
set_random_state = _backend.set_random_state
step_memory = _backend.step_memory
synchronise = _backend.synchronise
vjp = _backend.vjp
while_loop = _backend.while_loop
