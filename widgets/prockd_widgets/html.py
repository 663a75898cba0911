"""A widget as one page that needs neither kernel nor network: the same script on a stand-in for the kernel's model."""

import base64
import json
from collections.abc import Mapping
from html import escape
from typing import Any

import anywidget

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src 'unsafe-inline'; \
style-src 'unsafe-inline'; img-src data: blob:">
<title>{title}</title>
<style>body {{ margin: 0 auto; padding: 12px; max-width: 1400px; background: Canvas }}
{css}</style></head>
<body><main id="prockd"></main>
<script type="application/json" id="prockd-state">{state}</script>
<script type="module">
{esm}
{stand_in}
</script></body></html>
"""
_STAND_IN = """
const state = JSON.parse(document.getElementById('prockd-state').textContent, (key, value) =>
  value && value.base64 !== undefined
    ? new DataView(Uint8Array.from(atob(value.base64), c => c.charCodeAt(0)).buffer) : value);
const listeners = {};
const model = {
  get: name => state[name],
  set: (name, value) => { state[name] = value; (listeners['change:' + name] || []).slice().forEach(f => f()); },
  on: (event, f) => event.split(' ').forEach(e => (listeners[e] ||= []).push(f)),
  off: (event, f) => event.split(' ').forEach(e => { listeners[e] = (listeners[e] || []).filter(g => g !== f); }),
  save_changes: () => {}, send: () => {},
};
globalThis.prockdModel = model;
render({ model, el: document.getElementById('prockd') });
"""


def offline_page(widget: anywidget.AnyWidget, title: str) -> str:
    """The page with everything that the widget shows."""
    return page_of(widget, title, {})


def page_of(widget: anywidget.AnyWidget, title: str, changes: Mapping[str, Any]) -> str:
    """The page with some traits changed. Nothing can end its script early: "<" of the state is written as an escape."""
    own = {name for name, trait in widget.traits(sync=True).items() if not name.startswith("_")}
    state = {**widget.get_state(own - {"layout", "tabbable", "tooltip", "comm"}), **changes}
    state["meta"] = {**state.get("meta", {}), "kernel": False}
    text = json.dumps(_texts(state), ensure_ascii=False).replace("<", "\\u003c")
    return _PAGE.format(title=escape(title), css=widget._css, esm=widget._esm, state=text, stand_in=_STAND_IN)


def _texts(value: Any) -> Any:
    """The same value with bytes as base64."""
    if isinstance(value, bytes | memoryview):
        return {"base64": base64.b64encode(value).decode()}
    if isinstance(value, dict):
        return {key: _texts(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_texts(each) for each in value]
    return value
