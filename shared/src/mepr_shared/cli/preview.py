"""The verb `preview` of modalities that look at pictures: its parser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mepr_shared.cli.modality import device_option, encoder_options
from mepr_shared.cli.verbs import add_verb


def add_preview(verbs: Any) -> None:
    """Add the verb."""
    verb = add_verb(
        verbs,
        "preview",
        "preview_verb:run_preview",
        "a contact sheet of what is looked at in a video: look before you trust",
    )
    verb.add_argument("video", type=Path, metavar="VIDEO", help="a video or a picture")
    verb.add_argument("--out", type=Path, required=True, metavar="SHEET.png")
    verb.add_argument("--start-s", type=float, metavar="S", help="start of the segment")
    verb.add_argument("--end-s", type=float, metavar="S", help="end of the segment")
    encoder_options(verb)
    verb.add_argument("--set", action="append", default=[], metavar="encoder.KEY=VALUE")
    verb.add_argument("--width", type=int, default=1600, help="of the sheet, in pixels")
    verb.add_argument("--overwrite", action="store_true", help="replace an existing sheet")
    device_option(verb)
