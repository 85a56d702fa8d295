"""An ONNX model that classifies pictures: opened, checked, and asked."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from airflow_imagetag.classifiers.activation import Activation, activation_of, probabilities
from airflow_imagetag.classifiers.classes import MISSING_PACKAGES, names_in_metadata
from airflow_imagetag.classifiers.model_input import view_of
from airflow_imagetag.classifiers.settings import LocalModel
from airflow_imagetag.errors import ConfigurationError, ImageRefusedError
from airflow_imagetag.models import Label

if TYPE_CHECKING:
    import numpy.typing as npt
    from PIL.Image import Image

    from airflow_imagetag.classifiers.view import View

log = logging.getLogger(__name__)

_FLOATS: Final = frozenset({"tensor(float)", "tensor(float16)", "tensor(double)"})


class Classifier:
    """A model in memory. Threads may share it: each call takes one core.

    :param content: the ONNX model, or the path of its file.
    :param settings: how it sees pictures, and which of its labels are kept.
    :param names: names of its classes; None for those that the model holds.
    :param what: names the model in messages.
    :raises ConfigurationError: the model cannot be used as the settings say.
    """

    def __init__(
        self,
        content: bytes | str,
        settings: LocalModel,
        names: Sequence[str] | None,
        what: str,
    ) -> None:
        self._settings = settings
        self._what = what
        self._session = _open_session(content, settings.providers, what)
        self.view: View = view_of(self._session.get_inputs(), settings, what)
        self._input = self._session.get_inputs()[0].name
        self._output = self._choose_output()
        self._activation = self._find_activation(content)
        self._names = names or self._own_names()
        self._check()

    @property
    def names(self) -> Sequence[str]:
        """Names of the classes."""
        return self._names

    @property
    def providers(self) -> Sequence[str]:
        """Execution providers that the model runs on, the preferred one first."""
        return tuple(self._session.get_providers())

    def labels(self, picture: Image) -> tuple[Label, ...]:
        """Return the labels of a picture, most probable first; there may be none.

        :param picture: RGB, in the input's size, as ``view.cropped`` gives it.
        :raises ImageRefusedError: the model's output for the picture is no number.
        :raises ConfigurationError: the model failed, or gives no probabilities.
        """
        import numpy as np

        found = probabilities(self._scores(picture), self._activation)
        if not np.isfinite(found).all():
            raise ImageRefusedError(f"{self._what} gives no number for the image.")
        if found.min() < 0 or found.max() > 1:
            raise ConfigurationError(
                f"{self._what} gives {found.min():g} to {found.max():g}, which are no "
                "probabilities. Set activation in extra to softmax, or to sigmoid if an image may "
                "have several labels."
            )
        top_k = min(self._settings.top_k, len(found))
        best = np.argpartition(found, -top_k)[-top_k:]
        best = best[np.argsort(-found[best], kind="stable")]
        return tuple(
            Label(self._names[number], float(found[number]))
            for number in best.tolist()
            if found[number] >= self._settings.min_probability
        )

    def _scores(self, picture: Image) -> npt.NDArray[Any]:
        """Return the output for one picture, a number for each class."""
        import numpy as np

        values = {self._input: self.view.batch(picture)}
        try:
            (scores,) = self._session.run([self._output], values)
        # ONNX Runtime has errors of its own, which share no class.
        except Exception as error:
            raise ConfigurationError(
                f"{self._what} cannot be run on a picture of {self.view.height} x "
                f"{self.view.width} pixels: {_short(error)}. Set input_size and layout in extra as "
                "the model was trained."
            ) from None
        return np.asarray(scores, np.float32).reshape(-1)

    def _choose_output(self) -> str:
        outputs = self._session.get_outputs()
        asked = self._settings.output
        names = ", ".join(repr(each.name) for each in outputs)
        if asked is not None and asked not in {each.name for each in outputs}:
            raise ConfigurationError(
                f"{self._what} has no output {asked!r}. Set output in extra to one of {names}."
            )
        if asked is None and len(outputs) > 1:
            raise ConfigurationError(
                f"{self._what} has {len(outputs)} outputs. Set output in extra to the one with a "
                f"number for each class: {names}."
            )
        chosen = next(each for each in outputs if asked in (None, each.name))
        # Some models end in a map of 1 x 1 for each class.
        sides = list(chosen.shape or [])[2:]
        if chosen.type not in _FLOATS or any(side not in (1, None) for side in sides):
            raise ConfigurationError(
                f"The output {chosen.name!r} of {self._what} is {chosen.type} of the shape "
                f"{list(chosen.shape)}; a classifier gives a number for each class, of the shape "
                "[batch, classes]. Give the model another output, or name it with output in extra."
            )
        return str(chosen.name)

    def _find_activation(self, content: bytes | str) -> Activation:
        if self._settings.activation is not None:
            return Activation(self._settings.activation)
        try:
            found = activation_of(content, self._output)
        except ImportError as error:
            raise ConfigurationError(f"{MISSING_PACKAGES} ({error}).") from None
        log.info("%s: activation %s", self._what, found.value)
        return found

    def _own_names(self) -> Sequence[str]:
        metadata = self._session.get_modelmeta().custom_metadata_map
        names = names_in_metadata(metadata, self._what)
        if names is None:
            raise ConfigurationError(
                f"{self._what} does not hold the names of its classes. Set classes in extra to a "
                "file with one name a line, to a JSON file, or to imagenet-1k."
            )
        return names

    def _check(self) -> None:
        """Run the model once: it must have a number for each name.

        :raises ConfigurationError: it has not, or cannot be run.
        """
        from PIL import Image

        grey = Image.new("RGB", (self.view.width, self.view.height), "grey")
        classes = len(self._scores(grey))
        if classes != len(self._names):
            raise ConfigurationError(
                f"{self._what} has {classes:,} classes, and there are {len(self._names):,} names. "
                "Set classes in extra to the names that the model was trained with, in its order."
            )


def _open_session(content: bytes | str, providers: Sequence[str], what: str) -> Any:
    try:
        import onnxruntime
    except ImportError as error:
        raise ConfigurationError(f"{MISSING_PACKAGES} ({error}).") from None
    if missing := set(providers) - set(onnxruntime.get_available_providers()):
        raise ConfigurationError(
            f"ONNX Runtime has no {', '.join(sorted(missing))} here. Set providers in extra to "
            f"some of {', '.join(onnxruntime.get_available_providers())}, or install the package "
            "that has it, such as onnxruntime-gpu."
        )
    options = onnxruntime.SessionOptions()
    # Images are labelled side by side, each by one thread: no core waits for another one.
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        return onnxruntime.InferenceSession(content, options, providers=list(providers))
    # ONNX Runtime has errors of its own, which share no class.
    except Exception as error:
        raise ConfigurationError(
            f"{what} is not an ONNX model that ONNX Runtime {onnxruntime.__version__} can load: "
            f"{_short(error)}. Export it again."
        ) from None


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
