"""What every screen that is about models can do with the one in front: open its pages, mark it, compare it."""

from __future__ import annotations

from ringrift_console.actions import find_model
from screens.base import BaseScreen


class ModelActions(BaseScreen):
    """The subject is the label of a model."""

    def do_registry_info(self) -> None:
        from screens.detail import ModelDetail

        if self.subject is not None:
            self.app.push_screen(ModelDetail(self.subject))

    def do_registry_criteria(self) -> None:
        from screens.model_criteria import CriteriaPage

        self._page(CriteriaPage)

    def do_registry_lineage(self) -> None:
        from screens.model_lineage import LineagePage

        self._page(LineagePage)

    def do_models_decisions(self) -> None:
        from screens.model_pages import HistoryPage

        self._page(HistoryPage)

    def do_registry_compare(self) -> None:
        from screens.model_compare import ComparePage

        marked, model = self.app.marked, find_model(self.app.snapshot, self.subject)
        if model is None:
            return
        if marked is None or find_model(self.app.snapshot, marked) is None:
            mark = self.app.keymap.hint("models.mark")
            self.say(f"mark a model first ({mark}), then go to another and compare", "warn")
        elif marked == model.sha256:
            self.say("this is the marked model; go to another one", "warn")
        else:
            self.app.push_screen(ComparePage(model.label, marked))

    def do_models_mark(self) -> None:
        model = find_model(self.app.snapshot, self.subject)
        if model is not None:
            self.app.marked = None if self.app.marked == model.sha256 else model.sha256
            compare = self.app.keymap.hint("registry.compare")
            said = f"marked; {compare} on another model compares" if self.app.marked else "not marked any more"
            self.say(f"{model.label} {said}")
            self.update()

    def _page(self, page: type) -> None:
        if self.subject is not None:
            self.app.push_screen(page(self.subject))
