"""``@task.image_tag``: label the images that a Python function returns."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_imagetag.adapters.airflow_sdk import (
    Asset,
    DecoratedOperator,
    context_merge,
    determine_kwargs,
    task_decorator_factory,
)
from airflow_imagetag.operators.imagetag import ImageTagOperator
from airflow_imagetag.sources.values import ValueImages

if TYPE_CHECKING:
    from airflow_imagetag.adapters.airflow_sdk import Context, TaskDecorator

__all__ = ["image_tag_task"]


class _ImageTagDecoratedOperator(DecoratedOperator, ImageTagOperator):
    """Calls a function and labels the images that it returns.

    :param python_callable: returns anything that the operator's ``images`` takes.
    :param op_args: positional arguments of the function. (templated)
    :param op_kwargs: keyword arguments of the function. (templated)
    """

    template_fields: Sequence[str] = (
        *DecoratedOperator.template_fields,
        *ImageTagOperator.template_fields,
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {
        **DecoratedOperator.template_fields_renderers,
        **ImageTagOperator.template_fields_renderers,
    }
    custom_operator_name = "@task.image_tag"
    # The images are known only at run time, so the rendered fields are shown as they are then.
    overwrite_rtif_after_execution = True

    def __init__(
        self,
        *,
        python_callable: Callable[..., Any],
        op_args: Collection[Any] | None = None,
        op_kwargs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            python_callable=python_callable,
            op_args=op_args,
            op_kwargs=op_kwargs,
            images=[],
            **kwargs,
        )

    def execute(self, context: Context) -> Any:
        """Call the function, label the images that it returns, and return the labels frame."""
        context_merge(context, self.op_kwargs)
        kwargs = determine_kwargs(self.python_callable, self.op_args, context)
        # Not rendered: the function's result is data, which must not run templates.
        self.images = ValueImages(self.python_callable(*self.op_args, **kwargs))
        self.inlets.extend(
            value for value in (*self.op_args, *self.op_kwargs.values()) if isinstance(value, Asset)
        )
        # Not the decorated operator's method: on Airflow 3.0 it pushes by a method that is gone.
        return ImageTagOperator.execute(self, context)


def image_tag_task(
    python_callable: Callable[..., Any] | None = None,
    multiple_outputs: bool | None = None,
    **kwargs: Any,
) -> TaskDecorator:
    """Turn a function into a task that labels the images which it returns.

    Takes every parameter of :class:`~airflow_imagetag.operators.imagetag.ImageTagOperator` except
    ``images``.

    :param python_callable: the function; returns anything that ``images`` takes.
    :param multiple_outputs: must stay unset: the result is one DataFrame.
    """
    return task_decorator_factory(
        python_callable=python_callable,
        multiple_outputs=multiple_outputs,
        decorated_operator_class=_ImageTagDecoratedOperator,
        **kwargs,
    )
