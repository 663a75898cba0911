"""A widget as one page that needs neither kernel nor network: the same script on a stand-in for the kernel's model."""

import base64
import json
import re
from collections.abc import Mapping
from html import escape
from typing import Any

import anywidget

from prockd_widgets.assets import STATIC

PAGE = (STATIC / "page.html").read_text(encoding="utf-8")
"""The page, what is filled in between percent signs; the script fills it in too (explorer_saved.js)."""


def offline_page(widget: anywidget.AnyWidget, title: str) -> str:
    """The page with everything that the widget shows."""
    return page_of(widget, title, {})


def page_of(widget: anywidget.AnyWidget, title: str, changes: Mapping[str, Any]) -> str:
    """The page with some traits changed. Nothing can end its script early: "<" of the state is written as an escape."""
    state = {**widget.get_state(own_traits(widget)), **changes}
    state["meta"] = {**state.get("meta", {}), "kernel": False}
    text = json.dumps(_texts(state), ensure_ascii=False).replace("<", "\\u003c")
    filled = {"title": escape(title), "css": widget._css, "esm": widget._esm, "state": text}
    return re.sub("%(title|css|esm|state)%", lambda found: filled[found[1]], PAGE)


def own_traits(widget: anywidget.AnyWidget) -> list[str]:
    """The traits of which the page needs the values."""
    others = ("layout", "tabbable", "tooltip", "comm", "page")
    return sorted(name for name in widget.traits(sync=True) if not name.startswith("_") and name not in others)


def _texts(value: Any) -> Any:
    """The same value with bytes as base64."""
    if isinstance(value, bytes | memoryview):
        return {"base64": base64.b64encode(value).decode()}
    if isinstance(value, dict):
        return {key: _texts(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_texts(each) for each in value]
    return value
