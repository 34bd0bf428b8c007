from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from django.contrib import admin
from django.db.models import Model
from django.urls import URLPattern

_M = TypeVar("_M", bound=Model)
_C = TypeVar("_C", bound=Model)
_P = TypeVar("_P", bound=Model)

class ModelAdmin(admin.ModelAdmin[_M]):
    custom_urls: Sequence[tuple[str, str, Any]]
    add_fieldsets: Any
    ordering_field: str | None
    hide_ordering_field: bool
    list_horizontal_scrollbar_top: bool
    list_filter_submit: bool
    list_filter_sheet: bool
    list_fullwidth: bool
    list_disable_select_all: bool
    list_before_template: str | None
    list_after_template: str | None
    change_form_before_template: str | None
    change_form_after_template: str | None
    change_form_outer_before_template: str | None
    change_form_outer_after_template: str | None
    change_form_datasets: Any
    compressed_fields: bool
    show_add_link: bool
    readonly_preprocess_fields: Mapping[str, Callable[[Any], Any] | str]
    warn_unsaved_form: bool
    conditional_fields: Mapping[str, str]
    list_sections: Sequence[Any]
    actions_list: Sequence[Any]
    actions_detail: Sequence[Any]
    actions_row: Sequence[Any]
    actions_submit_line: Sequence[Any]
    def get_custom_urls(self) -> tuple[tuple[str, str, Any], ...]: ...
    def get_urls(self) -> list[URLPattern]: ...

class TabularInline(admin.TabularInline[_C, _P]):
    ordering_field: str | None
    per_page: int | None
    hide_ordering_field: bool
    collapsible: bool
    show_count: bool
    hide_title: bool
    tab: bool

class StackedInline(admin.StackedInline[_C, _P]):
    ordering_field: str | None
    per_page: int | None
    hide_ordering_field: bool
    collapsible: bool
    show_count: bool
    hide_title: bool
    tab: bool
