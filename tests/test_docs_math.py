"""The chapters of docs/math hold what they promise: proofs, runnable answers, figures, and an index that names every theorem's tests."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from test_docs import blocks

ROOT = Path(__file__).resolve().parent.parent
MATH = ROOT / "docs" / "math"
PAGES = sorted(MATH.glob("*.md"))
CHAPTERS = [p for p in PAGES if re.match(r"0[1-9]|1[01]", p.name)]
THEOREMS = range(1, 24)
STATEMENT = r"(T\d+|Statement): \S"  # the title of what is proved: a theorem, or a statement that one rests on

chapters = pytest.mark.parametrize("page", CHAPTERS, ids=lambda p: p.stem)
pages = pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)


def prose(page: Path) -> str:
    """The text without its fenced blocks."""
    return re.sub(r"^ *```.*?^ *```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)


def sections(page: Path, level: int = 2) -> dict[str, str]:
    """Title -> text of each section of this level, fenced blocks and all."""
    found: dict[str, str] = {}
    title, fenced = "", False
    for line in page.read_text(encoding="utf-8").splitlines(keepends=True):
        fenced ^= line.lstrip().startswith("```")
        if not fenced and re.match(rf"#{{1,{level}}} ", line):
            title = line.split(" ", 1)[1].strip() if line.startswith("#" * level + " ") else ""
            assert title == "" or title not in found, f"{page.name} has two sections {title!r}"
        found[title] = found.get(title, "") + line
    found.pop("", None)
    return found


def slug(title: str) -> str:
    """What the hosting site makes of a heading in an address."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def anchors(page: Path) -> set[str]:
    return {slug(re.sub(r"[`*]", "", title).strip()) for title in re.findall(r"^#+ (.*)$", prose(page), re.M)}


def properties() -> dict[int, dict[str, bool]]:
    """Of each theorem: its test functions, and whether they are properties, drawn by Hypothesis."""
    found: dict[int, dict[str, bool]] = {}
    for path in sorted((ROOT / "tests").glob("test_theorems_*.py")):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
                match = re.match(r"test_t(\d\d)_", node.name)
                assert match, f"{path.name}: {node.name} does not say which theorem it tests"
                given = any(isinstance(d, ast.Call) and isinstance(d.func, ast.Name) and d.func.id == "given" for d in node.decorator_list)
                assert node.name not in found.setdefault(int(match[1]), {}), f"two tests are called {node.name}"
                found[int(match[1])][node.name] = given
    return found


def index() -> list[tuple[str, ...]]:
    """Of each row of the index: the theorem's title, the page and the heading that it leads to, the statement, the tests' names."""
    row = r"^\| \[(T\d+: .+)\]\(([\w-]+\.md)#([\w-]+)\) \| (.+?)<br>(`.+`) \|$"
    return re.findall(row, (MATH / "13-theorems.md").read_text(encoding="utf-8"), re.M)


# -- theorems -----------------------------------------------------------------------------------------------------------------------


def test_every_theorem_has_a_property() -> None:
    assert sorted(properties()) == list(THEOREMS)
    assert [number for number, functions in properties().items() if not any(functions.values())] == []


def test_every_theorem_stands_in_one_chapter() -> None:
    standing = [match[1] for page in CHAPTERS for title in sections(page) if (match := re.match(r"T(\d+): \S", title))]
    assert sorted(map(int, standing)) == list(THEOREMS)


def test_the_index_names_every_theorem_its_chapter_and_its_tests() -> None:
    rows = index()
    assert [title.split(":")[0] for title, *_ in rows] == [f"T{number}" for number in THEOREMS]
    for number, (title, page, anchor, statement, names) in zip(THEOREMS, rows, strict=True):
        assert title in sections(MATH / page) and anchor == slug(title)
        assert statement.endswith("."), f"{title} has no statement"
        assert re.findall(r"`(\w+)`", names) == list(properties()[number]), f"{title}: its tests"


# -- chapters -----------------------------------------------------------------------------------------------------------------------


def test_there_are_eleven_chapters_and_the_contents_list_all_pages() -> None:
    assert [p.name[:2] for p in PAGES if p.name != "README.md"] == [f"{n:02}" for n in range(14)]
    assert len(CHAPTERS) == 11
    linked = re.findall(r"\]\((\d\d-[\w-]+\.md)\)", (MATH / "README.md").read_text(encoding="utf-8"))
    assert linked == [p.name for p in PAGES if p.name != "README.md"]


@chapters
def test_headings(page: Path) -> None:
    titles = list(sections(page))
    assert titles[:2] == ["What it is for", "An example in numbers"]
    assert titles[-3:] == ["In the code", "Exercises", "Sources"]
    assert len(titles) >= 6 and all(re.match(STATEMENT, title) for title in titles[2:-3])


@chapters
def test_theorems_are_proved(page: Path) -> None:
    for title, text in sections(page).items():
        if re.match(STATEMENT, title):
            assert len(re.findall(r"\*\*Proof\.\*\*[^∎]*∎", text)) == 1, f"{page.name}, {title}"


@chapters
def test_the_code_is_linked(page: Path) -> None:
    links = re.findall(r"\[`[^\]]+`[^\]]*\]\((\.\./\.\./[\w/.-]+)\)", sections(page)["In the code"])
    assert links
    for link in links:
        assert (MATH / link).exists(), f"{page.name} links to {link}"


@chapters
def test_exercises_have_answers_that_run(page: Path) -> None:
    text = sections(page)["Exercises"]
    parts = re.split(r"^(?:\*\*)?(\d+)\.(?:\*\*)? ", text, flags=re.M)[1:]
    numbers, exercises = parts[::2], parts[1::2]
    assert 3 <= len(exercises) <= 6 and numbers == [str(n + 1) for n in range(len(exercises))]
    for number, exercise in zip(numbers, exercises, strict=True):
        answer = re.fullmatch(r"(.+?)\n\n *<details><summary>Answer</summary>\n\n(.+?)\n\n *</details>\n*", exercise, re.S)
        assert answer, f"{page.name}, exercise {number}: a question, then its answer in <details>"
        code = re.findall(r"^ *```python\n(.*?)^ *```$", answer[2], re.M | re.S)
        assert code and any("assert" in block for block in code), f"{page.name}, exercise {number}: nothing is checked"


@chapters
def test_each_chapter_shows_a_figure(page: Path) -> None:
    assert re.search(r"^!\[[^\]]+\]\(images/[\w-]+\.svg\)$", prose(page), re.M)  # test_docs_figures.py looks at the figures themselves


def test_questions_are_answered_in_numbers_with_a_link() -> None:
    page = MATH / "12-questions.md"
    answers = sections(page, 3)
    assert len(answers) >= 30
    for question, answer in answers.items():
        assert re.search(r"^```python\n(?:(?!```).*\n)*?.*assert ", answer, re.M), f"{question}: no number"
        assert re.search(r"\[T\d+\]\(\d\d-[\w-]+\.md#t\d+-", answer), f"{question}: no theorem"


# -- all pages ----------------------------------------------------------------------------------------------------------------------


@pages
def test_blocks_are_python_that_runs_or_text(page: Path) -> None:
    """test_docs.py runs what it finds; so it must find every block, and nothing may print what should be asserted."""
    fences = re.findall(r"^ *(```+|~~~+)(.*)$", page.read_text(encoding="utf-8"), re.M)
    assert len(fences) % 2 == 0
    languages = [language for _, language in fences[::2]]
    assert set(languages) <= {"python", "text"} and not any(language for _, language in fences[1::2])
    found = [text for _, text in blocks(page, "python")]
    assert len(found) == languages.count("python"), f"{page.name}: an indented block is not run"
    assert not any(re.search(r"\bprint\(|\btorch\b", text) for text in found)


@pages
def test_links_to_headings_lead_to_headings(page: Path) -> None:
    text = prose(page)
    for target, anchor in re.findall(r"\]\(([^)#\s:]*)#([^)\s]+)\)", text):
        assert anchor in anchors(page.parent / target if target else page), f"{page.name} links to {target}#{anchor}"
    for number, anchor in re.findall(r"\[T(\d+)\]\([\w-]+\.md#([\w-]+)\)", text):
        assert anchor.startswith(f"t{number}-"), f"{page.name}: T{number} leads to {anchor}"
