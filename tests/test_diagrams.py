"""Drawings are well-formed, escape what they show, and mark what was accepted by more than colour."""

from xml.etree import ElementTree

from medusa_core.plots.diagrams import shown, svg_heads, svg_lora, svg_step
from medusa_core.tree import Tree

SVG = "{http://www.w3.org/2000/svg}"


def words(picture):
    return [element.text for element in ElementTree.fromstring(picture).iter(f"{SVG}text")]


def size(picture):
    box = ElementTree.fromstring(picture).get("viewBox").split()
    return float(box[2]), float(box[3])


def test_each_head_has_a_box_over_the_token_that_it_guesses():
    texts = words(svg_heads(["The", "cat"], ["sat", "on", "<the>", "mat"], heads=3))
    assert [text for text in texts if text.startswith("head")] == ["head 1", "head 2", "head 3"]
    assert [text for text in texts if text.startswith("t")] == ["t + 1", "t + 2", "t + 3", "t + 4", "t"]
    assert {"LM head", "The", "cat", "sat", "on", "<the>", "mat"} <= set(texts)


def test_an_answer_shorter_than_the_heads_leaves_their_boxes_out():
    assert "head 2" not in words(svg_heads(["The"], ["cat", "sat"], heads=3))


def test_a_step_shows_every_guess_marks_the_path_and_writes_the_new_text():
    tree = Tree.from_paths([(0,), (1,), (0, 0), (1, 0)])
    picture = svg_step(["a", "b"], tree, ["r", "x", "<y>", "u", "v"], (0, 2, 4), "z")
    texts = words(picture)
    assert [text for text in texts if text.endswith("\N{CHECK MARK}")] == [
        "<y> \N{CHECK MARK}",
        "v \N{CHECK MARK}",
    ]
    assert {"x \N{MULTIPLICATION SIGN}", "u \N{MULTIPLICATION SIGN}"} <= set(texts)
    assert texts[-6:] == ["a", "b", "r", "<y>", "v", "z"]
    assert any("all 5 rows" in text for text in texts) and any("3 tokens" in text for text in texts)
    assert {"head 1", "head 2"} <= set(texts)


def test_an_adapter_is_drawn_with_its_shapes_and_what_it_costs():
    texts = words(svg_lora(576, 1536, 16))
    assert {"W, frozen: 1536 x 576", "A: 16 x 576", "B: 1536 x 16"} <= set(texts)
    assert "33,792 numbers learn beside 884,736" in texts


def test_everything_lies_inside_the_picture():
    tree = Tree.from_paths([(0,), (1,), (2,), (0, 0), (0, 0, 0)])
    path = (0, 1, 4, 5)
    step = svg_step(["a"] * 3, tree, ["b"] * 6, path, "c")
    for picture in (svg_heads(["a"] * 3, ["b"] * 5, 4), step, svg_lora(576, 1536, 16)):
        width, height = size(picture)
        for box in ElementTree.fromstring(picture).iter(f"{SVG}rect"):
            x, y = float(box.get("x", 0)), float(box.get("y", 0))
            assert x >= 0 and x + float(box.get("width")) <= width
            assert y >= 0 and y + float(box.get("height")) <= height


def test_token_texts_show_their_spaces_and_are_cut():
    assert shown(" a\n") == "\N{OPEN BOX}a\\n"
    assert shown("abcdefghijkl") == "abcdefghi\N{HORIZONTAL ELLIPSIS}"
