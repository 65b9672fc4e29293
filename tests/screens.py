"""The screens on which the pages are looked at in a browser."""

PHONE = {"viewport": {"width": 390, "height": 844}, "device_scale_factor": 2, "has_touch": True, "is_mobile": True}
WINDOW = {"viewport": {"width": 1280, "height": 900}}
