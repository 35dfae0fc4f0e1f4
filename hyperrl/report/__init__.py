"""Results for people: Markdown, pictures, films."""

from typing import TYPE_CHECKING

from hyperrl.utils.lazy import attach

if TYPE_CHECKING:
    from hyperrl.report.adaptation import write_study as write_study
    from hyperrl.report.beliefs import picture_beliefs as picture_beliefs
    from hyperrl.report.explanation import write_explanation as write_explanation
    from hyperrl.report.films import record as record
    from hyperrl.report.markdown import markdown_table as markdown_table
    from hyperrl.report.markdown import write_report as write_report

__getattr__, __dir__ = attach(
    __name__,
    {
        "adaptation": ("write_study",),
        "beliefs": ("picture_beliefs",),
        "explanation": ("write_explanation",),
        "films": ("record",),
        "markdown": (
            "markdown_table",
            "write_report",
        ),
    },
)
