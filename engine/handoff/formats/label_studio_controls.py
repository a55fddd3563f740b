"""Label Studio's controls: the configuration that asks a question, and the results that answer it."""

import re
from collections.abc import Iterable
from typing import Any
from xml.sax.saxutils import quoteattr

from engine.errors import ConfigError, InputError
from engine.handoff.exchange import Question, Shape, Value
from engine.handoff.formats.answer_values import box, one_of, outline
from engine.handoff.formats.task_files import compact
from engine.tables.values import text_of

Result = dict[str, Any]
CLASS, IMAGE = "class", "image"
"""The names of the control for classes and of the image that it is about."""
_CONTROLS = {
    "class": ('Choices name="class" toName="image" choice="single" required="true"',),
    "classes": ('Choices name="class" toName="image" choice="multiple"',),
    "boxes": ('RectangleLabels name="box" toName="image"', 'PolygonLabels name="polygon" toName="image"'),
    "mask": ('BrushLabels name="mask" toName="image"',),
}
_VARIABLE = re.compile(r"\$(?=[\w\[\].{}])", re.ASCII)
"""Where the interface puts in a task's data, as its `parseValue` does."""
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_NO_SHAPES = {"choices", "textarea", "rating", "number", "datetime", "taxonomy", "pairwise", "relation"}


def labeling_config(question: Question) -> str:
    """The XML of a project's labeling interface. Raises ConfigError for a class that it cannot show."""
    if bad := [name for name in question.classes if _VARIABLE.search(name)]:
        raise ConfigError(f"handoff.question.classes: {bad[0]!r}: label-studio takes $ for a variable; rename it")
    tag = "Choice" if question.task in ("class", "classes") else "Label"
    choices = "".join(f"    <{tag} value={quoteattr(name)}/>\n" for name in question.classes)
    controls = [f"  <{start}>\n{choices}  </{start.split()[0]}>\n" for start in _CONTROLS[question.task]]
    text = _NOT_XML.sub(" ", _VARIABLE.sub("$ ", question.instructions))
    header = f"  <Header value={quoteattr(text)}/>\n"
    image = f'  <Image name="{IMAGE}" value="$image"/>\n'
    return f"<View>\n{header if question.instructions else ''}{image}{''.join(controls)}</View>\n"


def value_of(results: list[Result], question: Question) -> tuple[Value, str]:
    """The value of an annotation, and its own JSON of shapes. Raises InputError if it does not answer the question."""
    if question.task not in ("class", "classes"):
        return [shape for result in results for shape in _shapes(result)], compact(results)
    results = [result for result in results if result.get("type") == "choices"]
    # A project may ask more than this.
    results = [result for result in results if result.get("from_name") == CLASS] or results
    found = sorted({text_of(choice, "a choice") for result in results for choice in result["value"]["choices"]})
    return found if question.task == "classes" else one_of(found), ""


def _shapes(result: Result) -> Iterable[Shape]:
    """The shapes of a region: one a label. Sides come in percent of the image."""
    kind, value = result["type"], result["value"]
    if kind in _NO_SHAPES:
        return
    if kind not in ("rectanglelabels", "polygonlabels", "brushlabels"):
        raise InputError(f"a result of type {kind!r}, which is not a labelled rectangle, polygon or brush")
    width, height = result["original_width"], result["original_height"]
    labels = [text_of(label, "a label") for label in value[kind]]
    if kind == "rectanglelabels":
        names = (("x", width), ("y", height), ("width", width), ("height", height))
        sides = [value[side] * total / 100 for side, total in names]
        # Degrees clockwise around the upper left corner.
        rotation = {"rotation": value["rotation"]} if value.get("rotation") else {}
        yield from (box(label, *sides) | rotation for label in labels)
    elif kind == "polygonlabels":
        points = [(x * width / 100, y * height / 100) for x, y in value["points"]]
        yield from (outline(label, [points], None) for label in labels)
    else:
        mask = {"format": value["format"], "rle": value["rle"], "size": [width, height]}
        yield from ({"label": label, "mask": mask} for label in labels)
