"""The projects that `flowctl create` makes."""
