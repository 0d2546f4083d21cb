"""The one seam to the backend: all that Keras does not offer for every one.

TensorFlow is supported; another backend is refused here, when it is used.
"""

import keras

if keras.backend.backend() == "tensorflow":
    from keras_epsched.backend.tensorflow import compile as compile
    from keras_epsched.backend.tensorflow import replica_id as replica_id
    from keras_epsched.backend.tensorflow import vjp as vjp
else:
    raise ImportError(
        "keras_epsched runs on the TensorFlow backend of Keras. Received: "
        f"{keras.backend.backend()!r}. Set the environment variable "
        "KERAS_BACKEND=tensorflow before Keras is imported."
    )
