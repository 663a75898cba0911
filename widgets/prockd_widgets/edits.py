"""Names and switches of the banks that a widget shows: set from Python or in the browser, with undo."""

from collections.abc import Callable
from typing import Any

import anywidget
import torch
import traitlets

from prockd.prototypes.bank import PrototypeBank
from prockd_widgets.patches import Patches

_KEPT = 50

State = dict[str, list[Any]]


def state_of(bank: PrototypeBank) -> State:
    """Names and switches of a bank, as the browser takes them."""
    return {"names": list(bank.names), "enabled": bank.enabled.tolist(), "merged": bank.merged.tolist()}


class BankEditor(anywidget.AnyWidget):
    """The part of a widget that edits banks; ``models`` read patches with them, two models may share one."""

    banks: traitlets.List[Any] = traitlets.List(help="Names and switches of each bank.").tag(sync=True)
    past: traitlets.List[Any] = traitlets.List(help="Earlier names and switches, for undo.").tag(sync=True)
    future: traitlets.List[Any] = traitlets.List(help="What undo took back, for redo.").tag(sync=True)
    models: list[Patches]

    def _remember(self) -> None:
        """Keep the banks as they are now: what undo and merging start from."""
        self._banks = list({id(m.bank): m.bank for m in self.models}.values())
        self._start = [(b.prototypes.detach().clone(), b.merged.cpu().tolist()) for b in self._banks]
        self._note()

    def _note(self) -> None:
        """What the banks were like when they were last read: another notebook cell may edit them meanwhile."""
        self._known = [(state_of(b), b.prototypes.detach().clone()) for b in self._banks]

    def follow_banks(self) -> bool:
        """Show names, switches and prototypes as they are in the banks now; True where they were edited elsewhere."""
        pairs = zip(self._banks, self._known, strict=True)
        if all(state_of(bank) == state and torch.equal(bank.prototypes, centres) for bank, (state, centres) in pairs):
            return False
        self._remember()
        self.past, self.future = [], []  # what was undone and redone was of the bank before
        self.banks = [state_of(b) for b in self._banks]
        self._follow()
        return True

    def _follow(self) -> None:
        """Show what follows from the banks."""
        raise NotImplementedError(f"{type(self).__name__} must show what follows from its banks")

    @traitlets.validate("banks")
    def _check_banks(self, proposal: Any) -> list[State]:
        """Refuse what no bank can have."""
        for state, bank in zip(proposal["value"], self._banks, strict=True):
            K, merged = bank.num_prototypes, [int(i) for i in state["merged"]]
            fits = len(state["names"]) == len(state["enabled"]) == len(merged) == K
            if not fits or not all(0 <= i < K and merged[i] == i for i in merged):
                raise traitlets.TraitError(f"names and switches do not fit a bank of {K} prototypes")
            if not any(state["enabled"]) or not all(str(name).strip() for name in state["names"]):
                raise traitlets.TraitError("one prototype must stay enabled, and every one needs a name")
        return list(proposal["value"])

    @torch.no_grad()
    def _apply(self) -> None:
        """Bring the banks in step with ``banks``; a merged centre is the mean of its members, weighted by patches.

        Banks that were edited elsewhere are not overwritten: they are shown, and the edit can be made again.
        """
        if self.follow_banks():
            return
        for bank, state, (centres, merged) in zip(self._banks, self.banks, self._start, strict=True):
            reader = next(m for m in self.models if m.bank is bank)
            usage = torch.bincount(reader.base.argmax(1), minlength=bank.num_prototypes).to(centres) + 1e-3
            bank.names = [str(name) for name in state["names"]]
            bank.enabled.copy_(torch.tensor(state["enabled"], dtype=torch.bool))
            bank.merged.copy_(torch.tensor(state["merged"]))
            bank.prototypes.copy_(centres)
            for i in {i for i, before in zip(state["merged"], merged, strict=True) if i != before}:
                members = bank.merged == i
                weights = usage[members] / usage[members].sum()
                bank.prototypes[i] = weights @ centres[members]
        self._note()
        self._follow()

    def _edit(self, model: int, change: Callable[[PrototypeBank], None]) -> None:
        self.follow_banks()
        before = self.banks
        change(self.models[model].bank)
        self._note()
        self.past, self.future = [*self.past, before][-_KEPT:], []
        self.banks = [state_of(b) for b in self._banks]

    def rename(self, prototype: int, name: str, *, model: int = 0) -> None:
        """See :meth:`prockd.PrototypeBank.rename`."""
        self._edit(model, lambda bank: bank.rename(prototype, name))

    def merge(self, into: int, other: int, *, model: int = 0) -> None:
        """See :meth:`prockd.PrototypeBank.merge`; the common centre is weighted by the patches of each."""
        self._edit(model, lambda bank: bank.merge(into, other))

    def disable(self, prototype: int, *, model: int = 0) -> None:
        """See :meth:`prockd.PrototypeBank.disable`."""
        self._edit(model, lambda bank: bank.disable(prototype))

    def enable(self, prototype: int, *, model: int = 0) -> None:
        """See :meth:`prockd.PrototypeBank.enable`."""
        self._edit(model, lambda bank: bank.enable(prototype))

    def undo(self) -> None:
        """Take the last edit back; nothing happens where there is none."""
        if self.past:
            self.future = [*self.future, self.banks]
            self.past, self.banks = self.past[:-1], self.past[-1]

    def redo(self) -> None:
        """Make the edit again that was taken back last; nothing happens where there is none."""
        if self.future:
            self.past = [*self.past, self.banks]
            self.future, self.banks = self.future[:-1], self.future[-1]
