"""How results look, on the page and in the downloaded report."""

# Colours of the two schemes; Gradio marks the dark one with a class on the body.
_DARK = """--ink: #e8eaee; --soft: #a8b0bc; --card: #1c2026; --line: #363c45; --track: #2d333b;
  --accent: #6fb3f2; --mark: #f0b54a; --mark-card: #33290f; --up: #ef8a76; --down: #7fb4ea;"""
STYLE = f"""
.mepr {{ --ink: #1b1e23; --soft: #59616d; --card: #fff; --line: #dfe3e8; --track: #e9ecf0;
  --accent: #0a5c99; --mark: #8a5a00; --mark-card: #fff6e0; --up: #a8321f; --down: #1f5f9e;
  color: var(--ink); font: 15px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
  display: grid; grid-template-columns: repeat(2, minmax(0, 1fr)); gap: 1rem; }}
.dark .mepr {{ {_DARK} }}
@media (prefers-color-scheme: dark) {{ .mepr.alone {{ {_DARK} }} }}
.mepr * {{ box-sizing: border-box; }}
.mepr section {{ background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 1rem 1.15rem 1.1rem; min-width: 0; }}
.mepr section.wide {{ grid-column: 1 / -1; }}
.mepr h2 {{ font-size: 1.05rem; line-height: 1.3; font-weight: 650; margin: 0 0 .6rem;
  color: var(--ink); }}
.mepr h3 {{ font-size: .9rem; font-weight: 650; margin: .9rem 0 .4rem; color: var(--ink); }}
.mepr p {{ margin: 0 0 .55rem; color: inherit; }}
.mepr .lead {{ font-size: 1.1rem; }}
.mepr .note, .mepr figcaption {{ color: var(--soft); font-size: .83rem; }}
.mepr p.note {{ margin: .6rem 0 0; }} .mepr .scroll + .scroll {{ margin-top: .8rem; }}
.mepr .panels .scroll {{ margin: 0; }}
.mepr .warn {{ background: var(--mark-card); border-left: 4px solid var(--mark); margin: .6rem 0;
  padding: .55rem .8rem; border-radius: 0 6px 6px 0; }}
.mepr .rows {{ display: grid; grid-template-columns: max-content minmax(0, 1fr) max-content;
  gap: .34rem .7rem; align-items: center; font-variant-numeric: tabular-nums; }}
.mepr .track {{ position: relative; height: .8rem; background: var(--track); border-radius: 3px; }}
.mepr .fill {{ position: absolute; inset: 0 auto 0 0; background: var(--accent);
  border-radius: 3px; }}
.mepr .range {{ position: absolute; top: .33rem; height: .14rem; background: var(--ink);
  opacity: .75; }}
.mepr .range::before, .mepr .range::after {{ content: ""; position: absolute; top: -.22rem;
  height: .58rem; border-left: 2px solid var(--ink); }}
.mepr .range::after {{ right: 0; }}
.mepr .traits {{ grid-template-columns: max-content max-content minmax(0, 1fr); }}
.mepr .dot {{ position: absolute; top: .06rem; width: .68rem; height: .68rem; margin-left: -.34rem;
  border-radius: 50%; background: var(--accent); border: 2px solid var(--card); }}
.mepr .decided {{ font-weight: 650; }}
.mepr .scroll {{ overflow-x: auto; }}
.mepr table {{ border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums;
  width: 100%; margin: 0; color: var(--ink); }}
.mepr th, .mepr td {{ padding: .3rem .5rem; text-align: right; border: 0;
  border-top: 1px solid var(--line); background: none; color: inherit; }}
.mepr thead th {{ border-top: 0; color: var(--soft); font-weight: 600; }}
.mepr tr.total > * {{ border-top: 2px solid var(--soft); font-weight: 650; }}
.mepr th.label, .mepr td.label {{ text-align: left; }}
.mepr td.text {{ text-align: left; white-space: normal; }}
.mepr caption {{ text-align: left; color: var(--ink); font-weight: 600; font-size: .87rem;
  padding-bottom: .25rem; }}
.mepr .panels {{ display: grid; gap: 1rem 1.4rem;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 19rem), 1fr)); }}
.mepr .heat td {{ color: #15181c; text-align: center; padding: .26rem .2rem; border: 2px solid
  var(--card); border-radius: 5px; font-size: .78rem; min-width: 2.9rem; }}
.mepr .heat td.strong {{ color: #fff; }}
.mepr .heat td.none {{ color: var(--soft); background: none; }}
.mepr .heat th {{ border: 0; font-weight: 500; padding: .2rem .4rem .2rem 0; text-align: left; }}
.mepr .heat thead th {{ text-align: center; font-size: .74rem; line-height: 1.2; padding: 0 .1rem
  .25rem; }}
.mepr .scale {{ height: .7rem; max-width: 22rem; border-radius: 3px; border: 1px solid var(--line);
  background: linear-gradient(90deg, rgb(33,102,172), #fff, rgb(178,24,43)); }}
.mepr .ends {{ display: flex; justify-content: space-between; max-width: 22rem; font-size: .8rem;
  color: var(--soft); margin-bottom: .8rem; }}
.mepr .frames {{ display: grid; gap: .6rem;
  grid-template-columns: repeat(auto-fill, minmax(6.4rem, 1fr)); }}
.mepr .frames figure {{ margin: 0; }}
.mepr .frames button {{ all: unset; display: block; cursor: zoom-in; border-radius: 6px;
  overflow: hidden; border: 1px solid var(--line); width: 100%; }}
.mepr button:focus-visible, .mepr a:focus-visible, .mepr .scroll:focus-visible {{
  outline: 3px solid var(--accent); outline-offset: 2px; }}
.mepr .frames img {{ display: block; width: 100%; height: 6.4rem; object-fit: cover; margin: 0; }}
.mepr [popover] {{ border: 0; border-radius: 10px; padding: .8rem; background: var(--card);
  color: var(--ink); max-width: 92vw; margin: auto; inset: 0; height: max-content; }}
.mepr [popover]::backdrop {{ background: rgb(0 0 0 / .65); }}
.mepr [popover] img {{ display: block; width: min(80vw, 30rem); max-height: 75vh; height: auto;
  object-fit: contain; margin: 0 0 .5rem; }}
.mepr .up {{ color: var(--up); }} .mepr .down {{ color: var(--down); }}
.mepr .broad {{ min-width: 38rem; }}
.mepr svg {{ display: block; width: 100%; height: auto; }}
.mepr p + .scroll {{ margin-top: .9rem; }}
.mepr .words {{ margin-top: .5rem; }}
.mepr .words span {{ border-radius: 3px; padding: .05rem .16rem; color: #15181c;
  display: inline-block; margin: .06rem 0; }}
.mepr .words span.strong {{ color: #fff; }}
.mepr .links {{ display: flex; flex-wrap: wrap; gap: .5rem; }}
.mepr .links a {{ border: 1px solid var(--line); border-radius: 7px; padding: .4rem .8rem;
  color: var(--accent); text-decoration: none; font-weight: 600; }}
@media (max-width: 46rem) {{ .mepr {{ grid-template-columns: minmax(0, 1fr); gap: .7rem; }}
  .mepr section {{ padding: .8rem .85rem; grid-column: 1 / -1; }}
  .mepr th, .mepr td {{ padding: .28rem .3rem; }} .mepr table {{ font-size: .8rem; }}
  .mepr .frames {{ grid-template-columns: repeat(3, minmax(0, 1fr)); gap: .4rem; }}
  .mepr .traits {{ grid-template-columns: minmax(0, 1fr) max-content; }}
  .mepr .traits .track {{ grid-column: 1 / -1; margin-bottom: .35rem; }} }}
"""
# Of the app around the results.
PAGE = """
footer { display: none !important; }
#results, #results .html-container { padding: 0 !important; overflow: visible; }
.gradio-container { max-width: 74rem !important; margin: 0 auto !important; }
"""
# For the report alone.
DOCUMENT = """
:root { color-scheme: light dark; } body { margin: 0; background: Canvas; }
main { max-width: 72rem; margin: 0 auto; padding: 1.5rem 1rem 3rem; }
h1 { font: 650 1.4rem/1.3 system-ui, sans-serif; margin: 0 0 1rem; overflow-wrap: anywhere; }
"""
