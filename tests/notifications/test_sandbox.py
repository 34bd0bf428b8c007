"""Whatever somebody writes as a template: it ends, stays small, reaches nothing, and escapes what it prints."""

from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from apps.notifications import sandbox
from apps.notifications.sandbox import HTML, JSON, PLAIN, TemplateRefused, names_in, render

EVIL = "<script>alert('x')</script> \"quoted\"\n\\ {{ title }}"
VALUES: dict[str, Any] = {
    "title": EVIL,
    "value": 93.123,
    "count": 2,
    "nothing": None,
    "starts_at": "2026-11-23T11:55:00.000Z",
    "labels": {"host": "web-1", "items": "a label called items"},
    "alerts": [{"title": "one", "labels": {"a": "b"}}, {"title": EVIL, "labels": {}}],
}


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("{{ value | round(1) }} {{ value | quantity('percent') }}", "93.1 93.1 %"),
        ("{% for a in alerts %}{{ loop.index }}:{{ a.title | truncate(4) }} {% endfor %}", "1:one 2:<sc… "),
        (
            "{% for name, text in labels.items() %}{{ name }}{% if not loop.last %},{% endif %}{% endfor %}",
            "host,items",
        ),
        ("{{ labels.host }}{{ labels['host'] }}{{ labels.get('no', '–') }}", "web-1web-1–"),
        ("{{ nothing }}{{ absent }}{{ absent.of.what.is.absent }}{{ alerts[7].title }}", ""),
        ("{{ starts_at | time('%H:%M', 'Europe/Berlin') }}", "12:55"),
        ("{% if value > 90 and 'web' in labels.host %}high{% else %}low{% endif %}", "high"),
        ("{{ 'yes' if labels.host in ['web-1', 'web-2'] else 'no' }}", "yes"),
        ("{% set short = labels.host.upper() %}{{ short ~ '/' ~ count }}", "WEB-1/2"),
        ("{{ labels | join(', ') }} {{ 4000 | duration }} {{ alerts | length }}", "host, items 1 h 6 min 2"),
        (
            "{% if count %}\n  {% for n in range(2) %}\n{{ n }}{% if n %}!{% endif %}\n{% endfor %}\n{% endif %}\nend",
            "0\n1!\nend",
        ),
        ("{# said to nobody #}{% raw %}{{ raw }}{% endraw %}", "{{ raw }}"),
        ("{% for n in range(3) %}{{ n }}{% endfor %}{{ count * 2 + 1 }}", "0125"),
    ],
)
def test_templates_say_what_they_are_given(source: str, text: str):
    assert render(source, VALUES) == text


HOSTILE = [
    "{% for i in range(10**9) %}x{% endfor %}",
    "{% for i in range(1000000000) %}x{% endfor %}",
    "{% for a in range(999) %}" * 3 + "{% endfor %}" * 3,
    "{{ 'a' * 1000000000 }}",
    "{{ [1] * 1000000000 }}",
    "{{ '%1000000000d' % 1 }}",
    "{{ '{:>1000000000}'.format(1) }}",
    "{{ 'x'.ljust(1000000000) }}",
    "{{ 'x' | center(1000000000) }}",
    "{{ 9 ** 9 ** 9 ** 9 }}",
    "{% set a = 'xxxxxxxxxx' %}" + "{% set a = a ~ a %}" * 60 + "{{ a }}",
    "{% set a = 'xxxxxxxxxx' %}" + "{% set a = a + a %}" * 60 + "{{ a }}",
    "{% set a = [1] %}" + "{% set a = [a, a] %}" * 60 + "{{ a | tojson }}",
    "{% set a = 9 %}" + "{% set a = a * a %}" * 60 + "{{ a }}",
    "{% set a = 'xx' %}" + "{% set a = a | replace('x', a) %}" * 60 + "{{ a }}",
    "{% set a = namespace(b=1) %}{% for i in range(9) %}{% set a.b = a.b ~ a.b %}{% endfor %}",
    "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    "{% for x in alerts recursive %}{{ loop(alerts) }}{% endfor %}",
    "{% include 'x' %}",
    "{% extends 'x' %}",
    "{% import 'x' as y %}",
    "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "{{ ''['__class__'] }}{{ labels['__class__']['__mro__'] }}{{ fail() }}",
    "{{ title.__init__.__globals__ }}",
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    "{{ self.__init__ }}",
    "{{ lipsum(1000000) }}",
    "{{ title | attr('__class__') }}",
    "{{ ['id'] | map('system') | list }}",
    "{{ _budget.left }}",
    "{{ title | _steps(1) }}",
    "{{ labels.pop('host') }}",
    "{{ (title | list).append(1) }}",
    "{{ starts_at | time('%1000000000Y') }}",
    "{{ labels }}",
    "{{ 1 / 0 }}",
    "{{ nothing + 1 }}",
    "{{ value | round(",
    "{% for x in y %}",
    "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "{{ " + "not " * 4000 + "1 }}",
    "{{ " + "9" * 6000 + " }}",
    "x" * 30_000,
]


@pytest.mark.parametrize("source", HOSTILE, ids=lambda source: source[:40])
def test_what_would_hang_grow_or_break_out_is_refused_with_a_sentence(source: str):
    with pytest.raises(TemplateRefused, match=r"\.$"):
        render(source, VALUES)
    assert VALUES["labels"]["host"] == "web-1"


PIECES = st.sampled_from(
    [
        "{% for a in alerts %}", "{% for i in range(1000) %}", "{% endfor %}", "{% if count > 1 %}", "{% else %}",
        "{% endif %}", "{{ title }}", "{{ a.title }}", "{{ a ~ title ~ a }}", "{% set a = a ~ title %}",
        "{{ loop.index }}",
        "{{ labels.items() }}", "{{ title | upper | replace('a', title) }}", "{% set b = alerts | sort %}", "{{ b }}",
        "{{ count * 999999999 }}", "{{ a.x.y.z() }}", "{{ title.split('') | join(title) }}", "{{ alerts | tojson }}",
        "{{ -value // 0 }}", "{{ title[1:2] }}", "{{ 'a' in title }}", "{{ range(999) | join }}", "{{ b[count] }}",
        "{{ labels.get(title, a) }}", "{% set a = alerts %}", "{{ value is odd }}", "{{ title | int }}",
        "text", "{{", "}}",
    ]
)  # fmt: skip
sources = st.one_of(
    st.lists(PIECES, max_size=12).map("".join), st.text(max_size=200), st.text("{}%|. a'()", max_size=60)
)


@given(sources, st.sampled_from([PLAIN, HTML, JSON]))
@settings(max_examples=150)
def test_any_text_is_rendered_within_bounds_or_refused(source: str, kind: str):
    try:
        written = render(source, VALUES, kind)
    except TemplateRefused:
        return
    assert len(written) <= sandbox.MOST_OUT


HARMLESS = (
    "{{ title }}{{ title ~ title }}{{ title | upper }}{{ title | tojson }}{{ alerts[0].title }}{{ labels | join }}"
)


@given(st.text())
def test_no_value_becomes_markup_in_html(text: str):
    values = {"title": text, "alerts": [{"title": text}], "labels": {text: ""}}
    assert not {"<", ">"} & set(render(HARMLESS, values, HTML))


@given(st.text())
def test_no_value_breaks_a_json_text_open(text: str):
    values = {"title": text, "alerts": [{"title": text}], "labels": {text: text}}
    source = '{"a": "{{ title }}", "b": {{ title | tojson }}, "c": {{ labels | tojson }}, "d": "{{ title ~ "!" }}"}'
    written = orjson.loads(render(source, values, JSON).encode("utf-8", "surrogatepass").decode("utf-8", "replace"))
    assert set(written) == {"a", "b", "c", "d"}
    assert written["a"] == written["b"]


def test_names_are_those_that_a_template_does_not_set_itself():
    source = "{% set own = title %}{% for a in alerts %}{{ a.x ~ own ~ loop.index ~ other }}{% endfor %}{{ range(3) }}"
    assert names_in(source) == {"title", "alerts", "other"}
