"""Pictures: functions of (result, ax=None) that return the Axes and never show them. They need matplotlib."""

from .._extras import needs

needs("matplotlib")
