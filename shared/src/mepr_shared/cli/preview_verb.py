"""What the verb `preview` does."""

from __future__ import annotations

import argparse
from pathlib import Path

from mepr_shared.cli.modality_verbs import encoder_settings
from mepr_shared.cli.output import emit_json, say
from mepr_shared.errors import ConfigError
from mepr_shared.plugin import ClipInput
from mepr_shared.vision.preview import check_target, draw_sheet, save_sheet, sheet_record

NARROWEST, WIDEST = 400, 8000


def run_preview(arguments: argparse.Namespace) -> int:
    """`mepr-M preview`: one PNG; with `--json` what it shows on stdout."""
    out: Path = arguments.out
    check_target(out, overwrite=arguments.overwrite)
    if not NARROWEST <= arguments.width <= WIDEST:
        raise ConfigError(f"--width {arguments.width}: it takes {NARROWEST} to {WIDEST} pixels")
    video: Path = arguments.video
    if out.exists() and video.exists() and out.samefile(video):
        raise ConfigError(f"{out} is what is to be looked at", hint="another --out")
    settings = encoder_settings(arguments, arguments.set)
    sight = arguments.modality.open_sight(settings, device=arguments.device)
    clip, regions = sight.look(
        ClipInput("0", media=video, start_s=arguments.start_s, end_s=arguments.end_s)
    )
    name = arguments.modality.name
    crops = sight.crops(clip, regions)
    sheet = draw_sheet(video.name, name, clip, regions, crops, width=arguments.width)
    record = sheet_record(video.name, name, clip, regions)
    save_sheet(sheet, out, record, overwrite=arguments.overwrite)
    if arguments.json:
        emit_json({**record, "sheet": str(out)})
    else:
        print(out)
    reason = f": {regions.reason}" if regions.reason else ""
    say(f"{regions.status}{reason}; the sheet shows a person: store and share with consent only")
    return 0
