"""Pictures: functions of (result, ax=None) that return the Axes and never show them."""
